//! The second look at a document: each wanted object straight into its type.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{header::Wanted, kinds::Kind, object::Object};

/// Reads the wanted objects of a document into `found`, each with its index.
pub(super) struct DocumentSeed<'a> {
    pub wanted: &'a Wanted,
    pub found: &'a mut Vec<(usize, Object)>,
}

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.is_list {
            return deserializer.deserialize_map(self);
        }
        match &self.wanted.items[0] {
            None => IgnoredAny::deserialize(deserializer).map(drop),
            Some(item) => {
                self.found.push((0, KindSeed(item.kind).deserialize(deserializer)?));
                Ok(())
            }
        }
    }
}

impl<'de> Visitor<'de> for DocumentSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a List")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                map.next_value_seed(ItemsSeed { wanted: self.wanted, found: &mut *self.found })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct ItemsSeed<'a> {
    wanted: &'a Wanted,
    found: &'a mut Vec<(usize, Object)>,
}

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for (index, item) in self.wanted.items.iter().enumerate() {
            match item {
                None => drop(seq.next_element::<IgnoredAny>()?),
                Some(item) => {
                    let object = seq.next_element_seed(KindSeed(item.kind))?;
                    self.found.extend(object.map(|object| (index, object)));
                }
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Reads an object whose kind is known.
struct KindSeed(Kind);

impl<'de> DeserializeSeed<'de> for KindSeed {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Object, D::Error> {
        Ok(match self.0 {
            Kind::Service => Object::Service(Box::deserialize(d)?),
            Kind::EndpointSlice => Object::EndpointSlice(Box::deserialize(d)?),
            Kind::Endpoints => Object::Endpoints(Box::deserialize(d)?),
            Kind::Pod => Object::Pod(Box::deserialize(d)?),
            Kind::Node => Object::Node(Box::deserialize(d)?),
            Kind::ServiceCidr => Object::ServiceCidr(Box::deserialize(d)?),
        })
    }
}
