//! Go's `Expand`: `$1`, `${1}`, `$name`, `${name}`, `$$`.

use regex::Captures;

/// The template with its references replaced. A name without braces is as long as it can be (`$1x` is `${1x}`);
/// a reference to a group that is not there, or took no part, is empty; a `$` that begins nothing is itself.
pub(super) fn expand(template: &str, captures: &Captures<'_>, names: &[Option<String>], out: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = reference(rest) else {
            out.push('$');
            continue;
        };
        rest = after;
        let group = match group_number(name) {
            Some(number) => captures.get(number),
            // Of several groups of this name the first that took part.
            None => names
                .iter()
                .enumerate()
                .filter(|(_, n)| n.as_deref() == Some(name))
                .find_map(|(i, _)| captures.get(i)),
        };
        out.push_str(group.map_or("", |m| m.as_str()));
    }
    out.push_str(rest);
}

/// The name at the start of what follows a `$`, and what follows the name.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (braced, body) = match text.strip_prefix('{') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let end = body
        .char_indices()
        .find(|(_, c)| !(is_letter_or_digit(*c) || *c == '_'))
        .map_or(body.len(), |(i, _)| i);
    if end == 0 {
        return None;
    }
    let (name, rest) = body.split_at(end);
    if braced { Some((name, rest.strip_prefix('}')?)) } else { Some((name, rest)) }
}

/// Go's letters and decimal digits; Rust's alphanumerics are a few more (letter-like numbers and marks).
fn is_letter_or_digit(c: char) -> bool {
    c.is_ascii_alphanumeric() || (!c.is_ascii() && c.is_alphanumeric())
}

/// The number that a name is; none with leading zeros, or above eight digits.
fn group_number(name: &str) -> Option<usize> {
    if !name.bytes().all(|b| b.is_ascii_digit())
        || name.len() > 9
        || (name.len() > 1 && name.starts_with('0'))
    {
        return None;
    }
    name.parse().ok()
}
