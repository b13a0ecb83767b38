//! What waits, in order: a lane for each shape, and in it the most urgent first. Whatever is where, it is added, found
//! and removed in logarithmic time.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::backlog::Charge;
use crate::cost::{CostModel, ShapeId};
use crate::request::ShapeKey;

/// What the scheduler needs to know of something that waits.
pub(crate) trait Item {
    fn rows(&self) -> usize;
    fn bytes(&self) -> usize;
    fn shape_key(&self) -> &ShapeKey;
    fn arrived(&self) -> Instant;
    fn due(&self) -> &Due;
    /// Nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
}

/// How urgent something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// From 0, the most urgent.
    pub(crate) level: u8,
    /// When an answer stops being worth anything.
    pub(crate) deadline: Option<Instant>,
    /// When it must have been taken: a queue policy's timeout that refuses.
    pub(crate) start_by: Option<Instant>,
    /// When it lets all others of its level go first: a queue policy's timeout that delays.
    pub(crate) yield_at: Option<Instant>,
}

/// Where something waits. It stays valid, and means nothing else, after that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    slot: u32,
    number: u64,
}

/// The order in a lane, and between the first of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) level: u8,
    pub(crate) has_yielded: bool,
    /// In nanoseconds: the deadline, or a virtual one.
    pub(crate) due_ns: u64,
    /// In the order of arrival; no two are equal.
    number: u64,
}

pub(crate) struct Waiting<T> {
    /// Moments are counted from here, in nanoseconds.
    epoch: Instant,
    /// Deadlines say nothing about who goes first.
    by_arrival: bool,
    slots: Vec<Option<Entry<T>>>,
    free: Vec<u32>,
    /// One for each shape that waits; those that are empty are kept for the next that come. They are found by a
    /// linear scan: models rarely see more than a handful of shapes at once.
    lanes: Vec<Lane>,
    rows: usize,
    bytes: usize,
    /// By level.
    items: Vec<usize>,
    next_number: u64,
}

/// Things of one shape.
pub(crate) struct Lane {
    pub(crate) key: ShapeKey,
    pub(crate) shape: ShapeId,
    pub(crate) rows: usize,
    order: BTreeMap<Rank, u32>,
    /// Ends of the list in which entries stand in the order of their arrival.
    oldest: Option<u32>,
    newest: Option<u32>,
}

/// Something that waits.
pub(crate) struct Entry<T> {
    pub(crate) item: T,
    pub(crate) rank: Rank,
    pub(crate) arrived_ns: u64,
    /// When its answer stops being worth anything; `u64::MAX` is never.
    pub(crate) deadline_ns: u64,
    /// When it must not be begun any more: then or earlier.
    pub(crate) expires_ns: u64,
    /// What it adds to the backlog.
    pub(crate) charge: Charge,
    /// It was let in to learn from, although its deadline looked too near.
    pub(crate) is_probe: bool,
    lane: u32,
    older: Option<u32>,
    newer: Option<u32>,
}

/// Without a deadline, something is as urgent as if it had one so long after its arrival: it is overtaken for that
/// long by what has one, and by nothing that came later without one.
const VIRTUAL_DEADLINE_NS: u64 = 1_000_000_000;
/// Lanes that are kept while they are empty.
const LANES_KEPT: usize = 8;
/// Slots that are kept while nothing waits.
const SLOTS_KEPT: usize = 1024;

// === impl Waiting ===

impl<T: Item> Waiting<T> {
    pub(crate) fn new(epoch: Instant, by_arrival: bool) -> Waiting<T> {
        Waiting {
            epoch,
            by_arrival,
            slots: Vec::new(),
            free: Vec::new(),
            lanes: Vec::new(),
            rows: 0,
            bytes: 0,
            items: Vec::new(),
            next_number: 0,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Things of one level.
    pub(crate) fn items(&self, level: u8) -> usize {
        self.items.get(usize::from(level)).copied().unwrap_or(0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// A moment in nanoseconds since the epoch; 0 before it, and `u64::MAX` where they cannot be counted.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    pub(crate) fn instant(&self, ns: u64) -> Instant {
        self.epoch + std::time::Duration::from_nanos(ns)
    }

    pub(crate) fn add(&mut self, item: T, cost: &CostModel) -> Place {
        let due = *item.due();
        let number = self.next_number;
        self.next_number += 1;
        let at = |instant: Option<Instant>| instant.map_or(u64::MAX, |instant| self.at(instant));
        let (deadline_ns, start_by_ns) = (at(due.deadline), at(due.start_by));
        let arrived_ns = self.at(item.arrived());
        let due_ns = match due.deadline {
            Some(_) if !self.by_arrival => deadline_ns,
            _ => arrived_ns.saturating_add(VIRTUAL_DEADLINE_NS),
        };
        let rank = Rank { level: due.level, has_yielded: false, due_ns, number };
        let lane = self.lane(item.shape_key(), cost);
        let (rows, older) = (item.rows(), self.lanes[lane].newest);
        self.rows += rows;
        self.bytes += item.bytes();
        let level = usize::from(due.level);
        if level >= self.items.len() {
            self.items.resize(level + 1, 0);
        }
        self.items[level] += 1;
        let entry = Entry {
            rank,
            arrived_ns,
            deadline_ns,
            expires_ns: deadline_ns.min(start_by_ns),
            charge: Charge::default(),
            is_probe: false,
            lane: lane as u32,
            older,
            newer: None,
            item,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.push(Some(entry));
                (self.slots.len() - 1) as u32
            }
        };
        match older {
            Some(older) => self.entry_mut(older).newer = Some(slot),
            None => self.lanes[lane].oldest = Some(slot),
        }
        let lane = &mut self.lanes[lane];
        lane.newest = Some(slot);
        lane.rows += rows;
        lane.order.insert(rank, slot);
        Place { slot, number }
    }

    /// The lane of a shape, made if there is none.
    fn lane(&mut self, key: &ShapeKey, cost: &CostModel) -> usize {
        let same = self.lanes.iter().position(|lane| lane.key == *key);
        let index = same.or_else(|| self.lanes.iter().position(Lane::is_empty)).unwrap_or_else(|| {
            self.lanes.push(Lane::new());
            self.lanes.len() - 1
        });
        let lane = &mut self.lanes[index];
        if lane.is_empty() {
            if same.is_none() {
                lane.key = key.clone();
            }
            lane.shape = cost.shape_id(key);
        }
        index
    }

    /// Takes something out, wherever it stands; `None` if it has left already.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Entry<T>> {
        let entry = self.slots.get(place.slot as usize)?.as_ref()?;
        (entry.rank.number == place.number).then(|| self.remove_slot(place.slot))
    }

    pub(crate) fn remove_slot(&mut self, slot: u32) -> Entry<T> {
        let entry = self.slots[slot as usize].take().expect("the slot was found in an index; this is a bug");
        self.free.push(slot);
        match entry.older {
            Some(older) => self.entry_mut(older).newer = entry.newer,
            None => self.lanes[entry.lane as usize].oldest = entry.newer,
        }
        match entry.newer {
            Some(newer) => self.entry_mut(newer).older = entry.older,
            None => self.lanes[entry.lane as usize].newest = entry.older,
        }
        let rows = entry.item.rows();
        let lane = &mut self.lanes[entry.lane as usize];
        lane.order.remove(&entry.rank);
        lane.rows -= rows;
        self.rows -= rows;
        self.bytes -= entry.item.bytes();
        self.items[usize::from(entry.rank.level)] -= 1;
        if self.is_empty() && self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        while self.lanes.len() > LANES_KEPT && self.lanes.last().is_some_and(Lane::is_empty) {
            self.lanes.pop();
        }
        entry
    }

    /// From now on all others of its level go first.
    pub(crate) fn yield_to_others(&mut self, place: Place) {
        let Some(Some(entry)) = self.slots.get_mut(place.slot as usize) else { return };
        if entry.rank.number != place.number {
            return;
        }
        let order = &mut self.lanes[entry.lane as usize].order;
        order.remove(&entry.rank);
        entry.rank.has_yielded = true;
        order.insert(entry.rank, place.slot);
    }

    /// Lanes in which something waits, with their indices.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (usize, &Lane)> {
        self.lanes.iter().enumerate().filter(|(_, lane)| !lane.is_empty())
    }

    /// An index that [`Waiting::lanes`] gave, which holds for as long as something waits in the lane.
    pub(crate) fn lane_at(&self, index: usize) -> &Lane {
        &self.lanes[index]
    }

    /// The most urgent of a lane that may have become empty.
    pub(crate) fn first_in(&self, lane: usize) -> Option<u32> {
        self.lanes.get(lane)?.first()
    }

    pub(crate) fn entry(&self, slot: u32) -> &Entry<T> {
        self.slots[slot as usize].as_ref().expect("the slot was found in an index; this is a bug")
    }

    pub(crate) fn entry_mut(&mut self, slot: u32) -> &mut Entry<T> {
        self.slots[slot as usize].as_mut().expect("the slot was found in an index; this is a bug")
    }

    /// When the lane's oldest arrived.
    pub(crate) fn oldest_ns(&self, lane: &Lane) -> u64 {
        lane.oldest.map_or(u64::MAX, |slot| self.entry(slot).arrived_ns)
    }
}

// === impl Place ===

impl Place {
    pub(crate) fn slot(self) -> u32 {
        self.slot
    }
}

// === impl Lane ===

impl Lane {
    fn new() -> Lane {
        Lane {
            key: ShapeKey::default(),
            shape: ShapeId::All,
            rows: 0,
            order: BTreeMap::new(),
            oldest: None,
            newest: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The most urgent; there is one unless the lane is empty.
    pub(crate) fn first(&self) -> Option<u32> {
        self.order.first_key_value().map(|(_, slot)| *slot)
    }

    pub(crate) fn oldest(&self) -> Option<u32> {
        self.oldest
    }

    /// In their order from the first of `level` on that is due at `due_ns` or later, and has not yielded.
    pub(crate) fn from(&self, level: u8, due_ns: u64) -> impl Iterator<Item = u32> {
        let first = Rank { level, has_yielded: false, due_ns, number: 0 };
        let end = Rank { level, has_yielded: true, due_ns: 0, number: 0 };
        self.order.range(first..end).map(|(_, slot)| *slot)
    }
}

// === impl Entry ===

impl<T> Entry<T> {
    /// Where it stood.
    pub(crate) fn place(&self, slot: u32) -> Place {
        Place { slot, number: self.rank.number }
    }
}
