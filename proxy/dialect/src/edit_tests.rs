//! Tables for edits of JSON bodies.

use super::*;

const BODY: &str = r#" { "model" : "a/b", "n":[1, "two",{"x~y":null}],"a/b":{"":5}, "e":{ }, "l":[ ] , "d":1,"d":2 } "#;

#[test]
fn pointers_find_values() {
    let table = [
        ("/model", Some(r#""a/b""#)),
        ("/n", Some(r#"[1, "two",{"x~y":null}]"#)),
        ("/n/0", Some("1")),
        ("/n/1", Some(r#""two""#)),
        ("/n/2/x~0y", Some("null")),
        ("/a~1b/", Some("5")),
        ("/d", Some("2")),
        ("/e", Some("{ }")),
        ("/n/3", None),
        ("/n/01", None),
        ("/n/-", None),
        ("/n/+1", None),
        ("/model/0", None),
        ("/missing", None),
        ("model", None),
    ];
    for (pointer, expected) in table {
        let got = locate(BODY.as_bytes(), pointer).map(|span| &BODY[span]);
        assert_eq!(got, expected, "{pointer}");
    }
    assert_eq!(locate(BODY.as_bytes(), ""), Some(1..BODY.len() - 1));
    assert_eq!(locate(b"", ""), None);
}

#[test]
fn escaped_names_are_the_same_member() {
    let body = br#"{"\u006dodel":1}"#;
    assert_eq!(locate(body, "/model"), Some(14..15));
}

fn set(pointer: &str, value: &str) -> JsonEdit {
    JsonEdit::Set {
        pointer: pointer.to_owned(),
        value: value.to_owned(),
    }
}

fn remove(pointer: &str) -> JsonEdit {
    JsonEdit::Remove {
        pointer: pointer.to_owned(),
    }
}

#[test]
fn edits_leave_other_bytes_alone() {
    let table: [(&str, Vec<JsonEdit>, &str); 16] = [
        (
            r#"{ "a" : 1 , "b":2}"#,
            vec![set("/a", "\"x\"")],
            r#"{ "a" : "x" , "b":2}"#,
        ),
        (r#"{"a":1}"#, vec![set("/b", "[]")], r#"{"a":1,"b":[]}"#),
        (r#"{ "a":1 }"#, vec![set("/b", "2")], r#"{ "a":1,"b":2 }"#),
        ("{ }", vec![set("/b", "2")], r#"{"b":2 }"#),
        (
            r#"{"a":{}}"#,
            vec![set("/a/q\"", "true")],
            r#"{"a":{"q\"":true}}"#,
        ),
        ("[1,2]", vec![set("/1", "9"), set("/-", "3")], "[1,9,3]"),
        ("[ ]", vec![set("/-", "3")], "[3 ]"),
        ("1", vec![set("", "{}"), set("/a", "1")], r#"{"a":1}"#),
        (
            r#"{"a":1, "b":2, "c":3}"#,
            vec![remove("/a")],
            r#"{"b":2, "c":3}"#,
        ),
        (
            r#"{"a":1, "b":2, "c":3}"#,
            vec![remove("/b")],
            r#"{"a":1, "c":3}"#,
        ),
        (
            r#"{"a":1, "b":2, "c":3}"#,
            vec![remove("/c")],
            r#"{"a":1, "b":2}"#,
        ),
        (r#"{ "a":1 }"#, vec![remove("/a")], "{  }"),
        ("[1, 2, 3]", vec![remove("/0"), remove("/1")], "[2]"),
        (
            r#"{"d":1,"x":0,"d":2,"d":3}"#,
            vec![remove("/d")],
            r#"{"x":0}"#,
        ),
        (
            r#"{"a":1}"#,
            vec![remove("/x"), remove("/x/y"), remove("/a/0")],
            r#"{"a":1}"#,
        ),
        (r#"{"a":1}"#, vec![], r#"{"a":1}"#),
    ];
    for (body, edits, expected) in table {
        let got = apply_json_edits(body.as_bytes(), &edits);
        assert_eq!(got.as_deref(), Ok(expected.as_bytes()), "{body} {edits:?}");
    }
}

#[test]
fn bad_edits_are_refused_as_a_whole() {
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    let table = [
        (
            set("a", "1"),
            EditError::Pointer {
                pointer: "a".into(),
            },
        ),
        (
            set("a/b", "1"),
            EditError::Pointer {
                pointer: "a/b".into(),
            },
        ),
        (
            remove(""),
            EditError::Pointer {
                pointer: String::new(),
            },
        ),
        (
            remove("a/b"),
            EditError::Pointer {
                pointer: "a/b".into(),
            },
        ),
        (
            set("/x/y", "1"),
            EditError::NoParent {
                pointer: "/x/y".into(),
            },
        ),
        (
            set("/a/y", "1"),
            EditError::NoParent {
                pointer: "/a/y".into(),
            },
        ),
        (
            set("/l/5", "1"),
            EditError::NoParent {
                pointer: "/l/5".into(),
            },
        ),
        (
            set("/a", "1 2"),
            EditError::Value {
                pointer: "/a".into(),
            },
        ),
        (
            set("/a", "1,\"b\":2"),
            EditError::Value {
                pointer: "/a".into(),
            },
        ),
        (
            set("/a", ""),
            EditError::Value {
                pointer: "/a".into(),
            },
        ),
        (set("/a", &deep), EditError::Body),
    ];
    for (edit, expected) in table {
        let got = apply_json_edits(br#"{"a":1,"l":[]}"#, &[set("/a", "7"), edit.clone()]);
        assert_eq!(got, Err(expected), "{edit:?}");
    }
    assert_eq!(apply_json_edits(b"{\"a\":", &[]), Err(EditError::Body));
}

#[test]
fn splice_skips_what_does_not_fit() {
    let edit = |range: Range<usize>, text: &str| (range, text.as_bytes().to_vec());
    let mut edits = [
        edit(4..6, "EF"),
        edit(0..1, ""),
        edit(5..6, "no"),
        edit(2..2, "+"),
        edit(9..99, "no"),
    ];
    assert_eq!(splice(b"abcdefgh", &mut edits).as_ref(), b"b+cdEFgh");
}

#[test]
fn broken_bodies_never_panic() {
    for cut in 0..BODY.len() {
        for pointer in ["", "/model", "/n/2/x~0y", "/d", "/l/-"] {
            let _ = locate(&BODY.as_bytes()[..cut], pointer);
            let _ = apply_json_edits(
                &BODY.as_bytes()[..cut],
                &[set(pointer, "1"), remove("/n/0")],
            );
        }
    }
}
