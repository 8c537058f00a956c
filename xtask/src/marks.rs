//! What is between two marks of a text: a table in a page that people write.

/// The text with something else between the marks; none if they are not there.
pub(crate) fn between(text: &str, begin: &str, inside: &str, end: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{inside}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let new = between("a <b> old </b> c </b>", "<b>", "new", "</b>").unwrap();
        assert_eq!(new, "a <b>new</b> c </b>");
        assert_eq!(between(&new, "<b>", "new", "</b>").unwrap(), new);
        assert_eq!(between("a <b> c", "<b>", "new", "</b>"), None);
        assert_eq!(between("a </b> c <b>", "<b>", "new", "</b>"), None);
    }
}
