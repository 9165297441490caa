//! Functions in columns, for people.

use serde_json::Value;

const COLUMNS: [&str; 5] = ["ID", "VERSION", "NAME", "STATUS", "MODELS"];

/// The functions of an answer, one line each, or nothing when it holds none.
pub(crate) fn lines(answer: &Value) -> Vec<String> {
    let functions: Vec<&Value> = match (answer.get("functions"), answer.get("function")) {
        (Some(Value::Array(functions)), _) => functions.iter().collect(),
        (_, Some(function)) => vec![function],
        _ => return Vec::new(),
    };
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(functions.into_iter().map(row));
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(function: &Value) -> [String; 5] {
    let text = |name: &str| {
        let text = function.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let models = function.get("models").and_then(Value::as_array);
    let models: Vec<&str> = models
        .into_iter()
        .flatten()
        .filter_map(|model| model.get("name").and_then(Value::as_str))
        .collect();
    [
        text("id"),
        text("versionId"),
        text("name"),
        text("status"),
        models.join(","),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let answer = serde_json::json!({ "functions": [
            { "id": "demo", "versionId": "v", "name": "a-long-name", "status": "ACTIVE",
              "models": [{ "name": "m" }, { "name": "n" }] },
        ] });
        assert_eq!(
            lines(&answer),
            [
                "ID    VERSION  NAME         STATUS  MODELS",
                "demo  v        a-long-name  ACTIVE  m,n",
            ]
        );
        assert!(lines(&Value::Null).is_empty());
    }
}
