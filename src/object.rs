//! Reading and writing fields of an object (`serde_json::Value`) by path.

use serde_json::{Map, Value};

/// `object.at(&["spec", "replicas"])` and its typed kin. A missing or null step reads as absent.
pub trait Fields {
    fn at(&self, path: &[&str]) -> Option<&Value>;

    fn text_at(&self, path: &[&str]) -> &str;

    fn int_at(&self, path: &[&str]) -> Option<i64>;

    fn bool_at(&self, path: &[&str]) -> Option<bool>;

    /// The elements of a list; none where it is absent.
    fn list_at(&self, path: &[&str]) -> &[Value];

    fn map_at(&self, path: &[&str]) -> Option<&Map<String, Value>>;

    /// The map at `path`, made along the way where it is absent. Replaces what is not a map.
    fn make_map(&mut self, path: &[&str]) -> &mut Map<String, Value>;

    /// Sets a field, making the maps above it.
    fn set(&mut self, path: &[&str], value: impl Into<Value>);

    /// Sets a field where it is absent, provided that the map it stands in is there.
    fn set_default(&mut self, field: &str, value: impl Into<Value>);

    /// Removes a field; says what it was.
    fn take_at(&mut self, path: &[&str]) -> Option<Value>;

    /// The elements of a list, to change in place; none where it is absent.
    fn items_mut(&mut self, path: &[&str]) -> std::slice::IterMut<'_, Value>;

    fn at_mut(&mut self, path: &[&str]) -> Option<&mut Value>;
}

impl Fields for Value {
    fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, step| value.get(step)).filter(|value| !value.is_null())
    }

    fn text_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    fn int_at(&self, path: &[&str]) -> Option<i64> {
        self.at(path).and_then(Value::as_i64)
    }

    fn bool_at(&self, path: &[&str]) -> Option<bool> {
        self.at(path).and_then(Value::as_bool)
    }

    fn list_at(&self, path: &[&str]) -> &[Value] {
        self.at(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn map_at(&self, path: &[&str]) -> Option<&Map<String, Value>> {
        self.at(path).and_then(Value::as_object)
    }

    fn make_map(&mut self, path: &[&str]) -> &mut Map<String, Value> {
        fn as_map(value: &mut Value) -> &mut Map<String, Value> {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            match value {
                Value::Object(map) => map,
                _ => unreachable!("made an object above"),
            }
        }
        path.iter().fold(as_map(self), |map, step| as_map(map.entry(*step).or_insert(Value::Null)))
    }

    fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        if let Some((last, above)) = path.split_last() {
            self.make_map(above).insert((*last).to_owned(), value.into());
        }
    }

    fn set_default(&mut self, field: &str, value: impl Into<Value>) {
        if let Value::Object(map) = self {
            let place = map.entry(field).or_insert(Value::Null);
            if place.is_null() {
                *place = value.into();
            }
        }
    }

    fn take_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, above) = path.split_last()?;
        self.at_mut(above)?.as_object_mut()?.remove(*last)
    }

    fn items_mut(&mut self, path: &[&str]) -> std::slice::IterMut<'_, Value> {
        match self.at_mut(path) {
            Some(Value::Array(items)) => items.iter_mut(),
            _ => [].iter_mut(),
        }
    }

    fn at_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        path.iter().try_fold(self, |value, step| value.get_mut(step))
    }
}
