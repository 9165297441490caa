//! Tables and a randomised round trip for server-sent events.

use super::*;

const LIMIT: usize = 1 << 20;

/// (raw, name, data) of every event, the leftover last.
fn split(stream: &[u8], mut cut: impl FnMut(usize) -> usize) -> Vec<(Vec<u8>, String, Vec<u8>)> {
    let mut splitter = SseSplitter::new(LIMIT);
    let mut events = Vec::new();
    let mut left = stream;
    let mut add = |event: SseEvent| {
        events.push((
            event.raw.to_vec(),
            event.name().to_owned(),
            event.data().to_vec(),
        ))
    };
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(cut(left.len()).clamp(1, left.len()));
        splitter.push(&Bytes::copy_from_slice(chunk));
        while let Some(event) = splitter.next().unwrap() {
            add(event);
        }
        left = rest;
    }
    if let Some(event) = splitter.finish() {
        add(event);
    }
    assert!(splitter.finish().is_none());
    events
}

#[test]
fn streams_are_cut_into_events() {
    // (stream, [(raw, name, data)])
    type Expected<'a> = &'a [(&'a str, &'a str, &'a str)];
    let table: [(&str, Expected<'_>); 15] = [
        ("", &[]),
        (
            "data: a\n\ndata: b\n\n",
            &[("data: a\n\n", "", "a"), ("data: b\n\n", "", "b")],
        ),
        (
            "event: x\r\ndata:a\r\n\r\n",
            &[("event: x\r\ndata:a\r\n\r\n", "x", "a")],
        ),
        (
            "data: a\r\rdata:  b\r\r",
            &[("data: a\r\r", "", "a"), ("data:  b\r\r", "", " b")],
        ),
        (
            "data: a\ndata\ndata: c\n\n",
            &[("data: a\ndata\ndata: c\n\n", "", "a\n\nc")],
        ),
        (
            "data: a\r\n\ndata: b\n\r\n",
            &[("data: a\r\n\n", "", "a"), ("data: b\n\r\n", "", "b")],
        ),
        (
            ": ping\n\ndata: a\n\n",
            &[(": ping\n\n", "", ""), ("data: a\n\n", "", "a")],
        ),
        (
            "\n\ndata: a\n\n",
            &[("\n", "", ""), ("\n", "", ""), ("data: a\n\n", "", "a")],
        ),
        ("data: [DONE]", &[("data: [DONE]", "", "[DONE]")]),
        ("data: [DONE]\n", &[("data: [DONE]\n", "", "[DONE]")]),
        ("\u{feff}data: a\n\n", &[("\u{feff}data: a\n\n", "", "a")]),
        (
            "data: a\n\n\u{feff}data: b\n\n",
            &[("data: a\n\n", "", "a"), ("\u{feff}data: b\n\n", "", "")],
        ),
        (
            "id: 1\nevent:x\nevent: y\nretry: 3\ndata: \u{e4}:b\n\n",
            &[(
                "id: 1\nevent:x\nevent: y\nretry: 3\ndata: \u{e4}:b\n\n",
                "y",
                "\u{e4}:b",
            )],
        ),
        ("data:\n\n", &[("data:\n\n", "", "")]),
        ("database: a\n\n", &[("database: a\n\n", "", "")]),
    ];
    for (stream, expected) in table {
        let got = split(stream.as_bytes(), |left| left);
        let got: Vec<(&str, &str, &str)> = got
            .iter()
            .map(|(raw, name, data)| {
                (
                    std::str::from_utf8(raw).unwrap(),
                    name.as_str(),
                    std::str::from_utf8(data).unwrap(),
                )
            })
            .collect();
        assert_eq!(got, expected, "{stream:?}");
        let whole = split(stream.as_bytes(), |left| left);
        for size in 1..=stream.len() {
            let pieces = split(stream.as_bytes(), |_| size);
            let raw: Vec<u8> = pieces.iter().flat_map(|event| event.0.clone()).collect();
            assert_eq!(raw, stream.as_bytes(), "{stream:?} by {size}");
            assert_eq!(meaning(&pieces), meaning(&whole), "{stream:?} by {size}");
        }
    }
}

/// Name and data of what a reader acts on.
fn meaning(events: &[(Vec<u8>, String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    let acted = events
        .iter()
        .filter(|(_, name, data)| !name.is_empty() || !data.is_empty());
    acted
        .map(|(_, name, data)| (name.as_str(), data.as_slice()))
        .collect()
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn random_streams_in_random_chunks_come_out_the_same() {
    let mut dice = Dice(7);
    for round in 0..500 {
        let end = ["\n", "\r\n", "\r"][dice.roll(3)];
        let mut stream = String::new();
        let mut expected = Vec::new();
        for _ in 0..dice.roll(12) {
            if dice.roll(4) == 0 {
                stream.push_str(&format!(": note{end}{end}"));
                continue;
            }
            let name = ["", "message_start", "x"][dice.roll(3)];
            let lines: Vec<String> = (0..=dice.roll(3))
                .map(|_| "d\u{fc}:{ }".repeat(dice.roll(9) + 1))
                .collect();
            if !name.is_empty() {
                stream.push_str(&format!("event: {name}{end}"));
            }
            for line in &lines {
                stream.push_str(&format!("data: {line}{end}"));
            }
            stream.push_str(end);
            expected.push((name, lines.join("\n")));
        }
        let got = split(stream.as_bytes(), |_| dice.roll(40) + 1);
        let raw: Vec<u8> = got.iter().flat_map(|event| event.0.clone()).collect();
        assert_eq!(raw, stream.as_bytes(), "round {round}");
        let expected: Vec<(&str, &[u8])> = expected
            .iter()
            .map(|(name, data)| (*name, data.as_bytes()))
            .collect();
        assert_eq!(meaning(&got), expected, "round {round}");
    }
}

#[test]
fn an_event_in_one_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\nda");
    let mut splitter = SseSplitter::new(LIMIT);
    splitter.push(&chunk);
    for offset in [0, 9] {
        let event = splitter.next().unwrap().unwrap();
        assert_eq!(event.raw.as_ptr().addr(), chunk.as_ptr().addr() + offset);
    }
    assert_eq!(splitter.next(), Ok(None));
    splitter.push(&Bytes::from_static(b"ta: c\n\n"));
    splitter.push(&Bytes::from_static(b"data: d\n\n"));
    assert_eq!(splitter.next().unwrap().unwrap().data(), b"c");
    assert_eq!(splitter.next().unwrap().unwrap().data(), b"d");
}

#[test]
fn an_event_ends_at_its_last_cr_without_waiting() {
    let mut splitter = SseSplitter::new(LIMIT);
    splitter.push(&Bytes::from_static(b"data: a\r\n\r"));
    assert_eq!(splitter.next().unwrap().unwrap().data(), b"a");
    splitter.push(&Bytes::from_static(b"\ndata: b\r\n\r\n"));
    assert_eq!(
        splitter.next().unwrap().unwrap().raw.as_ref(),
        b"\ndata: b\r\n\r\n"
    );
    assert_eq!(splitter.next(), Ok(None));
}

#[test]
fn too_large_events_are_refused_for_good() {
    for chunks in [
        vec!["data: 123456789\n\n"],
        vec!["data: 12", "3456789"],
        vec!["data: 1234", "567\n\n"],
    ] {
        let mut splitter = SseSplitter::new(12);
        let mut failed = false;
        for chunk in &chunks {
            splitter.push(&Bytes::copy_from_slice(chunk.as_bytes()));
            failed |= splitter.next().is_err();
        }
        assert!(failed && splitter.next().is_err(), "{chunks:?}");
        assert_eq!(
            splitter.finish().unwrap().raw,
            chunks.concat(),
            "{chunks:?}"
        );
    }
    let mut splitter = SseSplitter::new(12);
    splitter.push(&Bytes::from_static(b"data: 1234\n\ndata: 1234\n\n"));
    assert!(
        splitter.next().unwrap().is_some() && splitter.next().unwrap().is_some(),
        "the limit is per event"
    );
}

#[test]
fn what_an_event_is() {
    let of = |text: &str| SseEvent::parse(Bytes::copy_from_slice(text.as_bytes()), 0);
    assert!(of("data: [DONE]\n\n").is_done() && !of("data: x\n\n").is_done());
    for (text, comment) in [
        (": x\n\n", true),
        ("\n", true),
        ("id: 1\n\n", true),
        ("event: x\n\n", false),
        ("data:\n\n", false),
    ] {
        assert_eq!(of(text).is_comment(), comment, "{text:?}");
    }
    let mut out = BytesMut::new();
    of("id: 1\r\ndata: {\"model\":\"m\"}\r\n\r\n").write_with_data_span(
        &(9..12),
        b"\"a/m\"",
        &mut out,
    );
    of("event: e\ndata: {\ndata: 5}\n\n").write_with_data_span(&(2..3), b"6", &mut out);
    assert_eq!(
        out.as_ref(),
        b"id: 1\r\ndata: {\"model\":\"a/m\"}\r\n\r\nevent: e\ndata: {\ndata: 6}\n\n"
    );
}

#[test]
fn events_are_written() {
    let table: [(&str, &str, &str); 5] = [
        ("", "a", "data: a\n\n"),
        ("x", "", "event: x\ndata: \n\n"),
        ("x\ny", "a", "event: xy\ndata: a\n\n"),
        ("", "a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
        ("", "a\n", "data: a\ndata: \n\n"),
    ];
    for (name, data, expected) in table {
        assert_eq!(
            encode_event(name, data.as_bytes()),
            expected,
            "{name:?} {data:?}"
        );
    }
}
