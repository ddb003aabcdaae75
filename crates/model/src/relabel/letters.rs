//! Upper and lower case as Go has it: letter by letter, one letter for one. Rust's own follow Unicode's full tables, where a
//! letter may become several (ß → SS) and a sigma depends on its place.

/// Go's `strings.ToLower`.
pub(super) fn to_lower(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().map(lower).collect() }
}

/// Go's `strings.ToUpper`.
pub(super) fn to_upper(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_uppercase() } else { text.chars().map(upper).collect() }
}

fn lower(c: char) -> char {
    let mut all = c.to_lowercase();
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        // The only letter whose full lower case is longer than the simple one.
        _ if c == 'İ' => 'i',
        _ => c,
    }
}

fn upper(c: char) -> char {
    let mut all = c.to_uppercase();
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        _ => with_iota(c),
    }
}

/// Greek small letters with iota below have a single capital beside their full one; other letters of several capitals have
/// none and stay.
fn with_iota(c: char) -> char {
    let capital = match c as u32 {
        n @ (0x1F80..=0x1F87 | 0x1F90..=0x1F97 | 0x1FA0..=0x1FA7) => n + 8,
        n @ (0x1FB3 | 0x1FC3 | 0x1FF3) => n + 9,
        n => n,
    };
    char::from_u32(capital).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_letter_becomes_one() {
        assert_eq!(to_upper("bAr123Foo"), "BAR123FOO");
        assert_eq!(to_lower("bAr123Foo"), "bar123foo");
        assert_eq!((to_upper("straße"), to_lower("ΟΔΟΣ")), ("STRAßE".to_owned(), "οδοσ".to_owned()));
        assert_eq!((to_lower("İI"), to_upper("ŉé"), to_upper("ᾳᾀ")), ("ii".into(), "ŉÉ".into(), "ᾼᾈ".into()));
    }
}
