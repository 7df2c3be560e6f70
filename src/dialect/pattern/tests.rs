use std::time::Duration;

use proptest::prelude::*;

use super::*;

const STAMP: Stamp = Stamp {
    seq: 7,
    unix: Duration::new(1_763_650_000, 42),
};
const NONCE: u32 = 0xc0ffee;

fn regex(source: &str) -> Pattern {
    Pattern::Regex(source.into())
}

fn pointer(pointer: &str, value: &str) -> Pattern {
    Pattern::Pointer {
        pointer: pointer.into(),
        value: value.into(),
    }
}

fn expanded(text: &str) -> String {
    Template::parse(text).unwrap().expand(STAMP, NONCE)
}

fn matches(pattern: &Pattern, text: &str) -> bool {
    let matcher = pattern.parse().unwrap().matcher(STAMP, NONCE).unwrap();
    matcher.matches(&Message::text(text))
}

#[test]
fn templates_are_filled_in() {
    assert_eq!(expanded("${seq}"), "7");
    assert_eq!(expanded("a${nonce}b"), "a00c0ffeeb");
    assert_eq!(
        expanded("${unix} ${unix_nanos} ${subsec_nanos}"),
        "1763650000 1763650000000000042 42"
    );
    assert_eq!(expanded("$seq {seq} $"), "$seq {seq} $");
    assert_eq!(expanded("$${seq} $$${seq}"), "${seq} $${seq}");
    assert_eq!(expanded(""), "");
}

#[test]
fn an_unknown_template_is_named_and_the_known_are_listed() {
    let wrong = check_template("Ping:${sequence}").unwrap_err();
    assert_eq!(
        wrong,
        "`${sequence}` is not known; there are ${seq}, ${nonce}, ${unix}, ${unix_nanos}, \
         ${subsec_nanos}, and `$${` for a `${` of its own"
    );
    let wrong = check_template("a ${seq").unwrap_err();
    assert!(
        wrong.starts_with("the `${` at byte 3 has no `}`"),
        "{wrong}"
    );
    let wrong = check_template("${a secret that should be shown nowhere}").unwrap_err();
    assert!(wrong.starts_with("`${..}` is not known"), "{wrong}");
    assert_eq!(check_template("${seq}${unix}"), Ok(()));
}

#[test]
fn a_regex_holds_what_the_templates_stand_for() {
    let pong = regex(r#"^Pong:\{"Sequence":${seq},"Seconds":${unix},"Nanos":${subsec_nanos}\}$"#);
    assert!(matches(
        &pong,
        r#"Pong:{"Sequence":7,"Seconds":1763650000,"Nanos":42}"#
    ));
    assert!(!matches(
        &pong,
        r#"Pong:{"Sequence":6,"Seconds":1763650000,"Nanos":42}"#
    ));
    assert!(matches(&regex("pong"), "a pong somewhere"));
    // Not the 7 of 77, if the pattern says where it ends.
    assert!(!matches(&regex(r"^pong ${seq}$"), "pong 77"));
    assert!(matches(&regex("^$${seq}$"), "${seq}"), "literally");
}

#[test]
fn a_pointer_finds_scalars() {
    let answer = pointer("/result/seq", "${seq}");
    assert!(matches(&answer, r#"{"result":{"seq":7}}"#));
    assert!(matches(&answer, r#"{"result":{"seq":"7"}}"#));
    assert!(!matches(&answer, r#"{"result":{"seq":8}}"#));
    assert!(!matches(&answer, r#"{"result":7}"#));
    assert!(!matches(&answer, "7"));
    assert!(matches(&pointer("", "true"), "true"));
    assert!(matches(&pointer("/0", "null"), "[null]"));
    assert!(!matches(&pointer("/0", ""), "[[]]"));
    assert!(matches(
        &pointer("/a~1b/~0", "pong"),
        r#"{"a/b":{"~":"pong"}}"#
    ));
    // A value is text, no regular expression.
    assert!(!matches(&pointer("/a", "."), r#"{"a":"x"}"#));
}

#[test]
fn text_in_a_binary_message_counts_and_what_is_no_text_matches_nothing() {
    let matcher = regex("pong").fixed().unwrap();
    assert!(matcher.matches(&Message::binary(*b"pong")));
    assert!(!matcher.matches(&Message::binary(*b"pong\xff")));
}

#[test]
fn a_message_too_large_for_a_heartbeat_is_none() {
    let matcher = regex("pong").fixed().unwrap();
    let mut large = "pong".to_owned() + &" ".repeat(LARGEST - 4);
    assert!(matcher.matches(&Message::text(large.clone())));
    large.push(' ');
    assert!(!matcher.matches(&Message::text(large)));
}

#[test]
fn what_cannot_be_used_is_told() {
    for (pattern, says) in [
        (
            regex("("),
            "the regular expression is broken: unclosed group",
        ),
        (regex("${nope}"), "`${nope}` is not known"),
        (regex(""), "an empty pattern matches everything"),
        (regex(r"(\w{500}){500}"), "more than 256 KiB"),
        (pointer("result", "1"), "does not begin with `/`"),
        (pointer("/a~2", "1"), "neither `~0`"),
        (pointer("/a~", "1"), "neither `~0`"),
        (pointer("/a", "${x}"), "`${x}` is not known"),
    ] {
        let wrong = pattern.check().unwrap_err();
        assert!(wrong.contains(says), "{wrong}");
        assert!(!wrong.contains('\n'), "{wrong}");
    }
    for good in [
        regex("^pong ${seq}$"),
        regex(r"(?i)\bpong\b.{1,100}"),
        pointer("", ""),
        pointer("/a~0/~1", "x"),
    ] {
        assert_eq!(good.check(), Ok(()), "{good:?}");
    }
}

#[test]
fn where_nothing_is_sent_templates_are_a_mistake() {
    let wrong = regex("^tick ${seq}$").check_fixed().unwrap_err();
    assert!(wrong.starts_with("`${seq}` means nothing here"), "{wrong}");
    assert_eq!(regex("^tick \\d+$").check_fixed(), Ok(()));
    assert_eq!(pointer("/type", "$${tick}").check_fixed(), Ok(()));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "[${}a-z_ ]{0,40}|.*") {
        let template = Template::parse(&text);
        if !text.contains("${") {
            prop_assert_eq!(template.unwrap().expand(STAMP, NONCE), text.clone());
        }
        let _ = regex(&text).check();
        let _ = pointer(&text, &text).check();
    }

    #[test]
    fn an_escaped_text_is_itself(text in "[${}a-z]{0,20}|.*") {
        let escaped = text.replace("${", "$${");
        prop_assert_eq!(Template::parse(&escaped).unwrap().expand(STAMP, NONCE), text);
    }
}
