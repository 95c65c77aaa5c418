//! Names in a sentence: a pause about ten thousand hosts is still one line.

/// The first of them, and how many more there are.
pub(crate) fn some_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let mut names = names.into_iter();
    let shown = names.by_ref().take(SHOWN).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::some_of;

    #[test]
    fn what_is_not_shown_is_counted() {
        assert_eq!(some_of([]), "");
        assert_eq!(some_of(["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(
            some_of(["a", "b", "c", "d", "e", "f", "g"]),
            "a, b, c, d, e and 2 more"
        );
    }
}
