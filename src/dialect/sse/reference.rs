//! The same standard once more, the slow and plain way: the whole stream at once, line by line.
//! The tests, and the fuzz target, hold the parser against it.

/// What a stream says: the events as type and data, and beside them the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Event(String, String),
    Comment,
    Retry(u64),
}

/// What is in `stream`, and the last event id behind it.
pub(crate) fn read(stream: &[u8]) -> (Vec<Said>, String) {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    // What has no end is no line.
    lines.pop();

    let mut said = Vec::new();
    let (mut kind, mut data) = (String::new(), String::new());
    let (mut id, mut last_event_id) = (String::new(), String::new());
    for line in lines {
        if line.is_empty() {
            last_event_id = id.clone();
            if let Some(data) = data.strip_suffix('\n') {
                let kind = if kind.is_empty() { "message" } else { &kind };
                said.push(Said::Event(kind.into(), data.into()));
            }
            (kind, data) = Default::default();
            continue;
        }
        if line.starts_with(':') {
            said.push(Said::Comment);
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        if field == "event" {
            kind = value.into();
        } else if field == "data" {
            data += value;
            data += "\n";
        } else if field == "id" && !value.contains('\0') {
            id = value.into();
        } else if field == "retry"
            && !value.is_empty()
            && !value.contains(|c: char| !c.is_ascii_digit())
        {
            said.push(Said::Retry(value.parse().unwrap_or(u64::MAX)));
        }
    }
    (said, last_event_id)
}
