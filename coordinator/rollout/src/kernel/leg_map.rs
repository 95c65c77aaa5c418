//! Something for each leg of a plan, walked in the order of the ids.
//!
//! Every question to a row begins with its leg, and a plan has a handful of them: their ids mostly differ in length already, so that a walk
//! finds one sooner than an ordered tree does.

use fleet_common::ids::LegId;
use std::ops::Index;

/// Values by leg.
#[derive(Clone, Debug)]
pub(crate) struct LegMap<V>(Vec<(LegId, V)>);

impl<V> LegMap<V> {
    pub fn get(&self, leg: &LegId) -> Option<&V> {
        let mut all = self.0.iter();
        all.find(|(known, _)| known == leg).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, leg: &LegId) -> Option<&mut V> {
        let mut all = self.0.iter_mut();
        all.find(|(known, _)| known == leg).map(|(_, value)| value)
    }

    pub fn insert(&mut self, leg: LegId, value: V) {
        match self.place(&leg) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (leg, value)),
        }
    }

    /// What is there for a leg; nothing yet, where it is new.
    pub fn or_default(&mut self, leg: &LegId) -> &mut V
    where
        V: Default,
    {
        let at = self.place(leg).unwrap_or_else(|at| {
            self.0.insert(at, (leg.clone(), V::default()));
            at
        });
        &mut self.0[at].1
    }

    fn place(&self, leg: &LegId) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(leg))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&LegId, &V)> + Clone {
        self.0.iter().map(|(leg, value)| (leg, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&LegId, &mut V)> {
        self.0.iter_mut().map(|(leg, value)| (&*leg, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &LegId> {
        self.0.iter().map(|(leg, _)| leg)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<V> Default for LegMap<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Index<&LegId> for LegMap<V> {
    type Output = V;

    /// Every leg of the plan has its rows from the start.
    fn index(&self, leg: &LegId) -> &V {
        let at = self.0.iter().position(|(known, _)| known == leg);
        &self.0[at.unwrap_or(self.0.len())].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Whatever is put in, in whatever order, it says what an ordered tree says.
        #[test]
        fn is_walked_and_found_as_in_a_tree(legs in prop::collection::vec(0_u8..8, 0..12)) {
            let id = |number: u8| LegId::new(format!("{}-{}", if number.is_multiple_of(2) { "clients" } else { "server" }, number / 2));
            let (mut map, mut tree) = (LegMap::default(), BTreeMap::new());
            for (value, number) in legs.into_iter().enumerate() {
                if value.is_multiple_of(3) {
                    *map.or_default(&id(number)) += value;
                    *tree.entry(id(number)).or_default() += value;
                } else {
                    map.insert(id(number), value);
                    tree.insert(id(number), value);
                }
            }
            prop_assert!(map.iter().eq(tree.iter()));
            prop_assert!(map.keys().eq(tree.keys()) && map.values().eq(tree.values()));
            for number in 0..8 {
                prop_assert_eq!(map.get(&id(number)), tree.get(&id(number)));
            }
        }
    }
}
