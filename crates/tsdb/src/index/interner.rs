//! Distinct strings under small numbers.

use hashbrown::HashTable;

/// All strings in one buffer; a number is the order of first appearance.
#[derive(Debug, Default)]
pub(super) struct Interner {
    text: String,
    /// End of each string in `text`; it starts where the one before it ends.
    ends: Vec<u64>,
    numbers: HashTable<u32>,
}

impl Interner {
    pub(super) fn intern(&mut self, string: &str) -> u32 {
        let hash = xxhash_rust::xxh3::xxh3_64(string.as_bytes());
        let (text, ends) = (&self.text, &self.ends);
        if let Some(number) = self.numbers.find(hash, |n| slice(text, ends, *n) == string) {
            return *number;
        }
        let number =
            u32::try_from(self.ends.len()).expect("2^32 distinct strings do not fit the symbol table");
        self.text.push_str(string);
        self.ends.push(self.text.len() as u64);
        let (text, ends) = (&self.text, &self.ends);
        self.numbers
            .insert_unique(hash, number, |n| xxhash_rust::xxh3::xxh3_64(slice(text, ends, *n).as_bytes()));
        number
    }

    pub(super) fn get(&self, number: u32) -> &str {
        slice(&self.text, &self.ends, number)
    }

    /// The numbers in the bytewise order of their strings.
    pub(super) fn sorted(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..self.ends.len() as u32).collect();
        numbers.sort_unstable_by_key(|n| self.get(*n));
        numbers
    }
}

fn slice<'a>(text: &'a str, ends: &[u64], number: u32) -> &'a str {
    let i = number as usize;
    let start = if i == 0 { 0 } else { ends[i - 1] };
    &text[start as usize..ends[i] as usize]
}
