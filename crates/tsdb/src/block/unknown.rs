//! Keys of a meta.json that this build does not know: nearly always none, and metas are held by the ten thousand, so none
//! takes a pointer instead of an empty table.

use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// What is read where there is none.
static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// Keys unknown to this build, with their values, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownKeys(Option<Box<Map<String, Value>>>);

impl Deref for UnknownKeys {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Map<String, Value> {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for UnknownKeys {
    fn deref_mut(&mut self) -> &mut Map<String, Value> {
        self.0.get_or_insert_default()
    }
}

impl Serialize for UnknownKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for UnknownKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Map::deserialize(deserializer)?;
        Ok(UnknownKeys((!keys.is_empty()).then(|| Box::new(keys))))
    }
}
