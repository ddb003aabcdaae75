//! Replica choice and overlap merging on iterators of samples.
