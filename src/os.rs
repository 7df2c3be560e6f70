//! What the operating system says, in words for people.

use std::fmt::Display;

/// An error without the `(os error 111)` that Rust adds: the words before it say the same.
pub(crate) fn words(error: &impl Display) -> String {
    const MARK: &str = " (os error ";
    let mut words = error.to_string();
    while let Some(start) = words.find(MARK) {
        let Some(length) = words[start..].find(')') else {
            break;
        };
        words.replace_range(start..=start + length, "");
    }
    words
}

/// An error and its causes, on one line; a cause that the error itself repeats is left out.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut all = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !all.contains(&cause_words) {
            all = format!("{all}: {cause_words}");
        }
        source = cause.source();
    }
    words(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_left_out_wherever_it_stands() {
        let refused = std::io::Error::from_raw_os_error(nix::libc::ECONNREFUSED);
        assert!(refused.to_string().contains("(os error"), "{refused}");
        assert_eq!(words(&refused), "Connection refused");
        let chain = format!("cannot bind: {refused}; try another: {refused}");
        let expected = "cannot bind: Connection refused; try another: Connection refused";
        assert_eq!(words(&chain), expected);
        assert_eq!(words(&"cut short (os error "), "cut short (os error ");
    }
}
