//! Two sorted walks side by side.
//!
//! What belongs to one sorted walk is often asked for in another one: a host's place in the plan beside its row, a service as it is now beside
//! the baseline. A fleet has tens of thousands of them, and these walks are taken with every tick and every look at PMM.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::iter::Peekable;

/// A sorted walk that is asked for keys which only rise: each step goes on from the last one.
pub(crate) struct Beside<I: Iterator>(Peekable<I>);

impl<'a, K: 'a, V: Copy, I: Iterator<Item = (&'a K, V)>> Beside<I> {
    /// Beside this walk, whose keys rise.
    pub fn new(all: impl IntoIterator<IntoIter = I>) -> Self {
        Self(all.into_iter().peekable())
    }

    /// What it has for a key that is not below the last one asked for.
    pub fn find<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        while let Some((known, value)) = self.0.peek() {
            match (*known).borrow().cmp(key) {
                Ordering::Less => self.0.next(),
                Ordering::Equal => return Some(*value),
                Ordering::Greater => return None,
            };
        }
        None
    }
}
