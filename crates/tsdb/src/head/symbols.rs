//! Interned strings: every label name and value of a head once, known by a number.

use chronolith_model::write::decode_labels;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a page of strings; a longer string has a page of its own.
const PAGE_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Default)]
struct Place {
    page: u32,
    start: u32,
    /// [`FREE`] for a number that stands for nothing.
    len: u32,
}

const FREE: u32 = u32::MAX;

/// The strings of one head.
pub(crate) struct Symbols {
    seed: u64,
    pages: Vec<String>,
    places: Vec<Place>,
    by_text: HashTable<u32>,
    free: Vec<u32>,
    /// While series are being removed: the symbols found in use so far. Whatever is interned meanwhile is in use.
    marks: Option<Vec<u64>>,
    /// Sweeps so far: while it stays the same, numbers keep their meaning.
    sweeps: u64,
}

impl Symbols {
    pub(crate) fn new(seed: u64) -> Self {
        Symbols {
            seed,
            pages: Vec::new(),
            places: Vec::new(),
            by_text: HashTable::new(),
            free: Vec::new(),
            marks: None,
            sweeps: 0,
        }
    }

    /// The text of a symbol.
    #[inline]
    pub(crate) fn text(&self, symbol: u32) -> &str {
        let p = self.places[symbol as usize];
        &self.pages[p.page as usize][p.start as usize..(p.start + p.len) as usize]
    }

    /// How often symbols were forgotten. While the answer is the same, so is what every number in use stands for.
    pub(crate) fn sweeps(&self) -> u64 {
        self.sweeps
    }

    /// The number of `text`, if it is known.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let hash = xxh3_64_with_seed(text.as_bytes(), self.seed);
        self.by_text.find(hash, |&s| self.text(s) == text).copied()
    }

    /// The number of `text`.
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        let symbol = self.find(text).unwrap_or_else(|| self.insert(text));
        if let Some(marks) = &mut self.marks {
            mark(marks, symbol);
        }
        symbol
    }

    /// The numbers of a label section's names and values.
    pub(crate) fn intern_section(&mut self, section: &[u8], out: &mut Vec<(u32, u32)>) {
        out.clear();
        for (name, value) in decode_labels(section).map_while(Result::ok) {
            out.push((self.intern(name), self.intern(value)));
        }
    }

    /// All symbols from the number `first` on, with their numbers, ascending.
    pub(crate) fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, &str)> {
        let used = (first..).zip(self.places.iter().skip(first as usize)).filter(|(_, p)| p.len != FREE);
        used.map(|(s, _)| (s, self.text(s)))
    }

    /// Enters a symbol under the number that a snapshot names.
    pub(crate) fn import(&mut self, symbol: u32, text: &str) {
        let at = symbol as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, Place { len: FREE, ..Place::default() });
        }
        self.places[at] = push_text(&mut self.pages, text);
        self.enter(text, symbol);
    }

    /// Finds the free numbers after an import.
    pub(crate) fn finish_import(&mut self) {
        let free = self.places.iter().enumerate().filter(|(_, p)| p.len == FREE);
        self.free = free.map(|(s, _)| s as u32).collect();
    }

    fn insert(&mut self, text: &str) -> u32 {
        let place = push_text(&mut self.pages, text);
        let symbol = match self.free.pop() {
            Some(s) => {
                self.places[s as usize] = place;
                s
            }
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u32
            }
        };
        self.enter(text, symbol);
        symbol
    }

    fn enter(&mut self, text: &str, symbol: u32) {
        let hash = xxh3_64_with_seed(text.as_bytes(), self.seed);
        let (places, pages, seed) = (&self.places, &self.pages, self.seed);
        self.by_text.insert_unique(hash, symbol, |&s| {
            let p = places[s as usize];
            let text = &pages[p.page as usize][p.start as usize..(p.start + p.len) as usize];
            xxh3_64_with_seed(text.as_bytes(), seed)
        });
    }

    /// Starts to look for symbols that no series uses; [`Symbols::mark`] tells of those that are used.
    pub(crate) fn begin_sweep(&mut self) {
        self.marks = Some(Vec::new());
    }

    /// The symbol is in use.
    pub(crate) fn mark(&mut self, symbol: u32) {
        if let Some(marks) = &mut self.marks {
            mark(marks, symbol);
        }
    }

    /// Forgets the symbols that were not marked and packs the others anew. Numbers stay.
    pub(crate) fn end_sweep(&mut self) {
        let Some(marks) = self.marks.take() else { return };
        self.sweeps += 1;
        let used = |s: u32| marks.get(s as usize / 64).is_some_and(|w| w >> (s % 64) & 1 == 1);
        let old_pages = std::mem::take(&mut self.pages);
        for (s, place) in self.places.iter_mut().enumerate() {
            if place.len == FREE {
                continue;
            }
            let text =
                &old_pages[place.page as usize][place.start as usize..(place.start + place.len) as usize];
            if used(s as u32) {
                *place = push_text(&mut self.pages, text);
            } else {
                let hash = xxh3_64_with_seed(text.as_bytes(), self.seed);
                if let Ok(entry) = self.by_text.find_entry(hash, |&x| x == s as u32) {
                    entry.remove();
                }
                place.len = FREE;
                self.free.push(s as u32);
            }
        }
        if self.by_text.is_empty() {
            *self = Symbols { sweeps: self.sweeps, ..Symbols::new(self.seed) };
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_text.len()
    }
}

fn mark(marks: &mut Vec<u64>, symbol: u32) {
    let word = symbol as usize / 64;
    if word >= marks.len() {
        marks.resize((word + 1).next_power_of_two(), 0);
    }
    marks[word] |= 1 << (symbol % 64);
}

fn push_text(pages: &mut Vec<String>, text: &str) -> Place {
    let fits = pages.last().is_some_and(|p| p.len() + text.len() <= PAGE_BYTES);
    if !fits {
        pages.push(String::new());
    }
    let page = pages.len() - 1;
    let start = pages[page].len();
    pages[page].push_str(text);
    Place { page: page as u32, start: start as u32, len: text.len() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_kept_once_and_swept() {
        let mut s = Symbols::new(7);
        let long = "x".repeat(100_000);
        let ids: Vec<u32> = ["", "a", "b", &long, "c"].iter().map(|t| s.intern(t)).collect();
        assert_eq!(s.intern("b"), ids[2]);
        s.begin_sweep();
        s.mark(ids[1]);
        s.mark(ids[3]);
        let late = s.intern("late");
        s.end_sweep();
        assert_eq!((s.text(ids[1]), s.text(ids[3]), s.text(late)), ("a", long.as_str(), "late"));
        assert_eq!((s.find("b"), s.find("c"), s.len()), (None, None, 3));
        assert_ne!(s.intern("b"), ids[1]);
        assert_eq!(s.text(s.find("b").unwrap()), "b");
    }
}
