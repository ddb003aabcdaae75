//! Natural order of strings: runs of digits compare as numbers.

/// True when `a` comes before `b`, as `sort_by_label` orders them.
pub(crate) fn natural_less(a: &str, b: &str) -> bool {
    let (ca, cb) = (chunks(a), chunks(b));
    for i in 0..ca.len() {
        if i >= cb.len() {
            return false;
        }
        let (x, y) = (ca[i], cb[i]);
        if x == y {
            continue;
        }
        match (x.parse::<u64>(), y.parse::<u64>()) {
            (Ok(nx), Ok(ny)) if nx == ny => {
                // Equal numbers of different length: the rest decides, else the longer is smaller.
                if i == ca.len() - 1 {
                    return true;
                }
                if i == cb.len() - 1 {
                    return false;
                }
            }
            (Ok(nx), Ok(ny)) => return nx < ny,
            _ => return x < y,
        }
    }
    ca.len() < cb.len()
}

/// Alternating runs of digits and other bytes.
fn chunks(s: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let bytes = s.as_bytes();
    let mut from = 0;
    for i in 1..=bytes.len() {
        if i == bytes.len() || bytes[i].is_ascii_digit() != bytes[i - 1].is_ascii_digit() {
            out.push(&s[from..i]);
            from = i;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_as_numbers() {
        assert!(natural_less("node2", "node10"));
        assert!(!natural_less("node10", "node2"));
        assert!(natural_less("a", "b") && natural_less("a", "a1") && !natural_less("a", "a"));
    }
}
