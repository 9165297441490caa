//! A function in the text of a file: only what changes is written anew, all else stays byte for byte.

use serde_json::{Map, Value as Json};
use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value,
};
use weir_config::PriorityTable;

use crate::admin::functions::refusal::Problem;

/// The text of one file, to be changed.
pub(crate) struct Document {
    document: DocumentMut,
    /// Lines end as on Windows.
    crlf: bool,
    /// There was no text yet.
    new: bool,
}

/// The first lines of a functions file that is made here.
const HEAD: &str = "\
# Functions made through the functions API of the admin listener, which also changes this file;
# see docs/functions.md. It may be edited by hand, live: comments stay.

";

impl Document {
    /// Reads a text that was found good; `file` names it in refusals.
    ///
    /// # Errors
    /// When writing it out again would not give the same text.
    pub(crate) fn read(text: Option<&str>, file: &str) -> Result<Self, Problem> {
        let Some(text) = text else {
            return Ok(Self {
                document: DocumentMut::new(),
                crlf: false,
                new: true,
            });
        };
        let plain = text.replace("\r\n", "\n");
        let crlf = plain != text;
        let document: DocumentMut = plain.parse().map_err(|_| Problem::layout(file))?;
        if document.to_string() != plain || (crlf && with_crlf(&plain) != text) {
            return Err(Problem::layout(file));
        }
        Ok(Self {
            document,
            crlf,
            new: false,
        })
    }

    /// The text now.
    pub(crate) fn text(&self) -> String {
        let text = self.document.to_string();
        match (self.new, self.crlf) {
            (true, _) => HEAD.to_owned() + text.trim_start(),
            (false, true) => with_crlf(&text),
            (false, false) => text,
        }
    }

    /// Whether it has the function.
    pub(crate) fn has(&self, id: &str) -> bool {
        let functions = self.document.get("functions");
        functions
            .and_then(Item::as_table_like)
            .is_some_and(|functions| functions.contains_key(id))
    }

    /// The table of a function, made when there is none.
    pub(crate) fn function(&mut self, id: &str) -> Option<&mut dyn TableLike> {
        let functions = table_in(self.document.as_table_mut(), "functions", true)?;
        table_in(functions, id, true)
    }

    /// Takes a function out. What stands above it and a blank line apart stays for what follows.
    pub(crate) fn remove(&mut self, id: &str) {
        let functions = self.document.get_mut("functions");
        let Some(functions) = functions.and_then(Item::as_table_like_mut) else {
            return;
        };
        let Some(mut removed) = functions.remove(id) else {
            return;
        };
        let mut first: Option<(isize, String)> = None;
        visit(&mut removed, &mut |table| {
            let Some(position) = table.position() else {
                return;
            };
            let above = above(table);
            if first
                .as_ref()
                .is_none_or(|(earlier, _)| position < *earlier)
            {
                first = Some((position, above));
            }
        });
        if let Some((position, above)) = first {
            let apart = above.rfind("\n\n").map_or(0, |blank| blank + 2);
            self.keep(position, above.get(..apart).unwrap_or_default());
        }
    }

    /// Puts comments above the first table after a position, or at the end of the text.
    fn keep(&mut self, after: isize, comments: &str) {
        if comments.trim().is_empty() {
            return;
        }
        let mut next: Option<isize> = None;
        let mut find = |table: &mut Table| {
            let position = table.position().filter(|position| *position > after);
            next = [next, position].into_iter().flatten().min();
        };
        for (_, item) in self.document.iter_mut() {
            visit(item, &mut find);
        }
        let Some(next) = next else {
            let trailing = self.document.trailing().as_str().unwrap_or_default();
            let trailing = format!("{comments}{trailing}");
            self.document.set_trailing(trailing);
            return;
        };
        let mut put = |table: &mut Table| {
            if table.position() == Some(next) {
                let above = above(table);
                let prefix = format!("{comments}{}", above.trim_start_matches('\n'));
                table.decor_mut().set_prefix(prefix);
            }
        };
        for (_, item) in self.document.iter_mut() {
            visit(item, &mut put);
        }
    }
}

/// What stands between a table and what is before it.
fn above(table: &Table) -> String {
    let prefix = table.decor().prefix().and_then(RawString::as_str);
    prefix.unwrap_or_default().to_owned()
}

/// Calls `deed` with each table that has a header of its own, an item's own and all below.
fn visit(item: &mut Item, deed: &mut impl FnMut(&mut Table)) {
    match item {
        Item::Table(table) => visit_table(table, deed),
        Item::ArrayOfTables(tables) => tables.iter_mut().for_each(|table| visit_table(table, deed)),
        Item::None | Item::Value(_) => {}
    }
}

fn visit_table(table: &mut Table, deed: &mut impl FnMut(&mut Table)) {
    if !table.is_implicit() && !table.is_dotted() {
        deed(table);
    }
    for (_, item) in table.iter_mut() {
        visit(item, deed);
    }
}

/// The table below a table, made when there is none: without a header of its own if `implicit`.
pub(crate) fn table_in<'t>(
    parent: &'t mut dyn TableLike,
    key: &str,
    implicit: bool,
) -> Option<&'t mut dyn TableLike> {
    let mut new = Table::new();
    new.set_implicit(implicit);
    let item = parent.entry(key).or_insert(Item::Table(new));
    item.as_table_like_mut()
}

/// Sets a key; what stands around its old value stays.
pub(crate) fn set(table: &mut dyn TableLike, key: &str, value: impl Into<Value>) {
    let mut value = value.into();
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
}

/// Sets a key to a text, or takes it away when that is empty.
pub(crate) fn set_or_remove(table: &mut dyn TableLike, key: &str, text: &str) {
    if text.is_empty() {
        table.remove(key);
    } else if table.get(key).and_then(Item::as_str) != Some(text) {
        set(table, key, text);
    }
}

/// Sets the priority of a function, or takes it away when it says nothing.
pub(crate) fn set_priority(function: &mut dyn TableLike, priority: &PriorityTable) {
    let mut table = InlineTable::new();
    if let Some(default) = priority.default {
        table.insert("default", i64::from(default).into());
    }
    if !priority.per_tenant.is_empty() {
        let pairs = priority.per_tenant.iter();
        let tenants: InlineTable = pairs
            .map(|(tenant, priority)| (tenant.as_str(), i64::from(*priority)))
            .collect();
        table.insert("per_tenant", Value::InlineTable(tenants));
    }
    if table.is_empty() {
        function.remove("priority");
    } else {
        set(function, "priority", Value::InlineTable(table));
    }
}

/// The kept versions of a function, made when there are none.
pub(crate) fn versions(function: &mut dyn TableLike) -> Option<&mut ArrayOfTables> {
    let versions = function
        .entry("versions")
        .or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    // `versions = [{...}]`, as a hand may write it.
    if let Some(array) = versions.as_array()
        && array.iter().all(Value::is_inline_table)
    {
        let array = std::mem::take(versions);
        *versions = array
            .into_array_of_tables()
            .map_or(Item::None, Item::ArrayOfTables);
    }
    versions.as_array_of_tables_mut()
}

/// One version.
pub(crate) fn version(id: &str, created_at: &str, kept: &Map<String, Json>) -> Table {
    let mut version = Table::new();
    version.insert("id", toml_edit::value(id));
    version.insert("created_at", toml_edit::value(created_at));
    let mut nvcf = Table::new();
    for (name, member) in kept {
        if let Some(value) = value(member) {
            nvcf.insert(name, Item::Value(value));
        }
    }
    version.insert("nvcf", Item::Table(nvcf));
    version
}

/// JSON as TOML; nulls are left out.
pub(crate) fn value(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::from(integer),
            None => Value::from(number.as_f64()?),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(values) => Value::Array(values.iter().filter_map(value).collect::<Array>()),
        Json::Object(members) => Value::InlineTable(
            members
                .iter()
                .filter_map(|(name, member)| Some((name.as_str(), value(member)?)))
                .collect(),
        ),
    })
}

fn with_crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}
