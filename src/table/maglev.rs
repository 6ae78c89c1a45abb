//! Maglev hashing (Eisenbud et al., NSDI 2016): a table that gives each backend its share and keeps its entries when others go.

use super::mixing::of_text;

/// A prime. One size for every number of backends, because a table of another size sends every client elsewhere: were it to
/// grow with the service, adding one backend too many would move them all.
pub(super) const SIZE: usize = 65_537;

const FREE: u16 = u16::MAX;

/// Which of the backends, given by identity and weight, has each entry. Those past the first 65,535 get none.
pub(super) fn table<'a>(backends: impl Iterator<Item = (String, u16)> + 'a) -> Box<[u16]> {
    let mut preferences: Vec<Preference> =
        backends.zip(0..FREE).map(|((identity, weight), index)| Preference::new(&identity, weight, index)).collect();
    let heaviest = preferences.iter().map(|preference| preference.weight).max().unwrap_or(1).max(1);
    let mut table = vec![FREE; SIZE];
    let mut left = if preferences.is_empty() { 0 } else { SIZE };
    // In each round every backend's credit grows by its weight; at the heaviest's weight it may take one entry, so that shares
    // follow the weights without favour for the first in the file beyond one entry.
    while left > 0 {
        for preference in &mut preferences {
            preference.credit += preference.weight;
            if preference.credit >= heaviest && left > 0 {
                preference.credit -= heaviest;
                let entry = preference.next_free(&table);
                table[entry] = preference.index;
                left -= 1;
            }
        }
    }
    table.into()
}

/// One backend's preferences: a permutation of the entries, and how far along it is.
struct Preference {
    index: u16,
    weight: u32,
    credit: u32,
    at: usize,
    skip: usize,
}

impl Preference {
    fn new(identity: &str, weight: u16, index: u16) -> Self {
        let at = (of_text(identity, 1) % SIZE as u64) as usize;
        // Any skip from 1 to SIZE - 1 visits every entry, SIZE being a prime.
        let skip = (of_text(identity, 2) % (SIZE as u64 - 1)) as usize + 1;
        Self { index, weight: u32::from(weight.max(1)), credit: 0, at, skip }
    }

    /// Its most preferred entry that is still free; the caller knows that there is one.
    fn next_free(&mut self, table: &[u16]) -> usize {
        loop {
            let entry = self.at;
            self.at = (self.at + self.skip) % SIZE;
            if table[entry] == FREE {
                return entry;
            }
        }
    }
}
