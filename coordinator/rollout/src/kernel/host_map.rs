//! Something for each host of a plan: walked in the order of the ids, found in one step.
//!
//! The kernel asks for single hosts far more often than a host is added, and a fleet has tens of thousands of them: in an ordered tree most
//! of a decision's time went into comparing ids.

use fleet_common::ids::HostId;
use foldhash::fast::FixedState;
use indexmap::IndexMap;
use indexmap::map::{Iter, Keys, Values, ValuesMut};

/// Values by host. Its keys are always sorted, so that walking two of them side by side works, and a restored one is walked like the first.
#[derive(Clone, Debug)]
pub(crate) struct HostMap<V>(IndexMap<HostId, V, FixedState>);

impl<V> HostMap<V> {
    pub fn get(&self, host: &HostId) -> Option<&V> {
        self.0.get(host)
    }

    pub fn get_mut(&mut self, host: &HostId) -> Option<&mut V> {
        self.0.get_mut(host)
    }

    pub fn contains_key(&self, host: &HostId) -> bool {
        self.0.contains_key(host)
    }

    /// A new host costs a move of all that sort behind it.
    pub fn insert(&mut self, host: HostId, value: V) {
        match self.0.get_mut(&host) {
            Some(known) => *known = value,
            None => {
                self.0.insert_sorted(host, value);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn iter(&self) -> Iter<'_, HostId, V> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> indexmap::map::IterMut<'_, HostId, V> {
        self.0.iter_mut()
    }

    pub fn keys(&self) -> Keys<'_, HostId, V> {
        self.0.keys()
    }

    pub fn values(&self) -> Values<'_, HostId, V> {
        self.0.values()
    }

    pub fn values_mut(&mut self) -> ValuesMut<'_, HostId, V> {
        self.0.values_mut()
    }
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self(IndexMap::default())
    }
}

impl<V> Extend<(HostId, V)> for HostMap<V> {
    fn extend<T: IntoIterator<Item = (HostId, V)>>(&mut self, hosts: T) {
        self.0.extend(hosts);
        self.0.sort_unstable_keys();
    }
}

impl<V> FromIterator<(HostId, V)> for HostMap<V> {
    fn from_iter<T: IntoIterator<Item = (HostId, V)>>(hosts: T) -> Self {
        let mut map = Self::default();
        map.extend(hosts);
        map
    }
}

impl<'a, V> IntoIterator for &'a HostMap<V> {
    type Item = (&'a HostId, &'a V);
    type IntoIter = Iter<'a, HostId, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
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
        fn is_walked_and_found_as_in_a_tree(first in prop::collection::vec(0_u16..60, 0..40), then in prop::collection::vec(0_u16..60, 0..40)) {
            let id = |number: &u16| HostId::new(format!("h{number}"));
            let mut map: HostMap<u16> = first.iter().map(|number| (id(number), *number)).collect();
            let mut tree: BTreeMap<HostId, u16> = first.iter().map(|number| (id(number), *number)).collect();
            for number in &then {
                map.insert(id(number), number + 100);
                tree.insert(id(number), number + 100);
            }
            prop_assert!(map.iter().eq(tree.iter()));
            for number in 0..60 {
                prop_assert_eq!(map.get(&id(&number)), tree.get(&id(&number)));
                prop_assert_eq!(map.contains_key(&id(&number)), tree.contains_key(&id(&number)));
            }
        }
    }
}
