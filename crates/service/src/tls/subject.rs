//! Who a client's certificate says it is.
//!
//! ```text
//! Certificate   SEQUENCE { tbs, … }
//! tbs           SEQUENCE { [0] version?, serial, algorithm, issuer, validity, subject, … }
//! subject       SEQUENCE OF SET OF SEQUENCE { OBJECT IDENTIFIER, text }
//! ```
//!
//! The certificate was verified by the TLS library before; what is read here is only the way to the subject.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xA0;
/// UTF8String, PrintableString, IA5String: all of them valid UTF-8.
const TEXTS: [u8; 3] = [0x0C, 0x13, 0x16];

/// The fields of a verified certificate's subject that may name a tenant. The first of each counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSubject {
    /// `CN`.
    pub common_name: Option<String>,
    /// `O`.
    pub organization: Option<String>,
    /// `OU`.
    pub organizational_unit: Option<String>,
}

impl PeerSubject {
    /// Reads the subject of a DER certificate; what cannot be read is not there.
    pub fn of(certificate: &[u8]) -> Self {
        let mut subject = PeerSubject::default();
        let Some(names) = subject_of(certificate) else { return subject };
        for (oid, text) in attributes(names) {
            let field = match oid {
                [0x55, 0x04, 0x03] => &mut subject.common_name,
                [0x55, 0x04, 0x0A] => &mut subject.organization,
                [0x55, 0x04, 0x0B] => &mut subject.organizational_unit,
                _ => continue,
            };
            field.get_or_insert_with(|| text.to_owned());
        }
        subject
    }
}

fn subject_of(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut tbs, _) = element(certificate)?;
    let (tag, _, after) = element(tbs)?;
    if tag == VERSION {
        tbs = after;
    }
    for _before in ["serial", "algorithm", "issuer", "validity"] {
        (_, _, tbs) = element(tbs)?;
    }
    let (tag, names, _) = element(tbs)?;
    (tag == SEQUENCE).then_some(names)
}

fn attributes(mut names: &[u8]) -> Vec<(&[u8], &str)> {
    let mut found = Vec::new();
    while let Some((SET, mut set, rest)) = element(names) {
        names = rest;
        while let Some((SEQUENCE, attribute, rest)) = element(set) {
            set = rest;
            if let Some((OBJECT_IDENTIFIER, oid, value)) = element(attribute)
                && let Some((tag, text, _)) = element(value)
                && TEXTS.contains(&tag)
                && let Ok(text) = std::str::from_utf8(text)
            {
                found.push((oid, text));
            }
        }
    }
    found
}

/// Tag, content, and what comes after.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let len = match first {
        0..=0x7F => usize::from(first),
        // 0x80 (no length) is not DER; more than four bytes is no certificate.
        0x81..=0x84 => {
            let (digits, after) = rest.split_at_checked(usize::from(first & 0x7F))?;
            rest = after;
            digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit))
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(len)?;
    Some((tag, content, after))
}
