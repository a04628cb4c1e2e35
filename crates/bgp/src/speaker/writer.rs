//! UPDATE messages for a group: what its stream has not told yet, worded and written once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::net::Family;
use model::peer::Community;

use crate::export::{Policy, Scope};
use crate::filter::Verdict;
use crate::rib::{Candidate, DestId, Destination, Path, PeerIndex, Stream, Table, Told};
use crate::wire::{self, Nlri};

/// Messages for the members of a group.
#[derive(Debug, Default)]
pub(super) struct Written {
    bytes: Bytes,
    /// Parts that a member does not get, because they say what it said itself; in order.
    exceptions: BTreeMap<PeerIndex, Vec<Range<usize>>>,
    /// What only one member gets.
    personal: BTreeMap<PeerIndex, Bytes>,
    /// How many routes could not be announced.
    pub(super) too_long: usize,
}

impl Written {
    /// Returns what a member is to be sent; the bytes are not copied.
    pub(super) fn for_member(&self, index: PeerIndex) -> Vec<Bytes> {
        let mut parts: Vec<Bytes> = self.personal.get(&index).cloned().into_iter().collect();
        let mut at = 0;
        for gap in self.exceptions.get(&index).into_iter().flatten() {
            parts.push(self.bytes.slice(at..gap.start));
            at = gap.end;
        }
        parts.push(self.bytes.slice(at..));
        parts.retain(|part| !part.is_empty());
        parts
    }
}

/// A path that is to be announced.
struct Item {
    nlri: Nlri,
    id: DestId,
    told: Told,
    verdict: Verdict,
    /// The communities that it is marked with because of its prefix.
    marks: BTreeSet<Community>,
    way: Way,
}

enum Way {
    Own(Arc<Path>),
    Learned(Candidate),
}

impl Item {
    /// What is equal for all that goes into one message; and then the order in it.
    fn key(&self) -> (Message<'_>, DestId) {
        let family = self.nlri.prefix.family();
        ((self.told.order(), family, self.verdict, &self.marks), self.id)
    }
}

type Message<'a> = (u64, Family, Verdict, &'a BTreeSet<Community>);

/// What is told of, gathered before it is written.
struct Gathering<'a> {
    policy: &'a Policy,
    scope: &'a Scope,
    members: BTreeSet<PeerIndex>,
    announced: Vec<Item>,
    withdrawn: Vec<(PeerIndex, Nlri)>,
    /// Withdrawals for the member whose own path is now told instead.
    personal: BTreeMap<PeerIndex, Vec<Nlri>>,
}

/// Takes up to `limit` destinations off the stream's queue and writes what the members
/// do not know of them yet.
pub(super) fn write(
    stream: &mut Stream,
    policy: &Policy,
    scope: &Scope,
    table: &mut Table,
    limit: usize,
) -> Written {
    let mut gathering = Gathering {
        policy,
        scope,
        members: stream.members.clone(),
        announced: Vec::new(),
        withdrawn: Vec::new(),
        personal: BTreeMap::new(),
    };
    for _ in 0..limit {
        let Some(id) = stream.take() else { break };
        let family = table.get(id).map(|destination| destination.cidr().family());
        if family.is_some_and(|family| policy.sends_several(family)) {
            gathering.gather_several(id, stream, table);
        } else {
            gathering.gather_single(id, stream, table);
        }
        table.release(id);
    }
    gathering.encode(stream, table)
}

impl Gathering<'_> {
    fn own_item(&self, id: DestId, destination: &Destination, table: &Table) -> Option<Item> {
        let path = table.own(id)?;
        let verdict = self.policy.judge_own(destination.cidr(), self.scope);
        let told = Told::new(path, PeerIndex::OURSELVES);
        let nlri = Nlri { prefix: *destination.cidr(), path_id: 0 };
        let way = Way::Own(Arc::clone(path));
        let marks = BTreeSet::new();
        (verdict != Verdict::Reject).then_some(Item { nlri, id, told, verdict, marks, way })
    }

    fn learned_item(&self, id: DestId, destination: &Destination, place: usize) -> Option<Item> {
        let candidate = destination.candidates().get(place)?;
        let verdict = self.policy.judge_learned(destination.cidr(), candidate, self.scope);
        let told = Told::new(&candidate.path, candidate.source.peer);
        let nlri = Nlri { prefix: *destination.cidr(), path_id: candidate.sent_id };
        let way = Way::Learned(candidate.clone());
        let marks = self.scope.marks_of(destination.cidr());
        (verdict != Verdict::Reject).then_some(Item { nlri, id, told, verdict, marks, way })
    }

    fn gather_single(&mut self, id: DestId, stream: &mut Stream, table: &mut Table) {
        let Some(destination) = table.get(id) else { return };
        let nlri = Nlri { prefix: *destination.cidr(), path_id: 0 };
        let item = if destination.is_own() {
            self.own_item(id, destination, table)
        } else {
            self.learned_item(id, destination, 0)
        };
        let old = stream.single(id);
        let new = item.as_ref().map_or(Told::NOTHING, |item| item.told);
        if old == new {
            return;
        }
        stream.set_single(id, new, table);
        match item {
            Some(item) => self.announce(Item { nlri, ..item }, old),
            None => self.withdrawn.push((old.source(), nlri)),
        }
    }

    fn gather_several(&mut self, id: DestId, stream: &mut Stream, table: &mut Table) {
        let Some(destination) = table.get(id) else { return };
        let prefix = *destination.cidr();
        let places = 0..destination.candidates().len();
        let learned = places.filter_map(|place| self.learned_item(id, destination, place));
        let items: Vec<Item> =
            self.own_item(id, destination, table).into_iter().chain(learned).collect();
        let old = stream.several(id).to_vec();
        let new: Vec<(u32, Told)> =
            items.iter().map(|item| (item.nlri.path_id, item.told)).collect();
        if old == new {
            return;
        }
        for item in items {
            let path_id = item.nlri.path_id;
            let before = old.iter().find(|(known, _)| *known == path_id);
            let before = before.map_or(Told::NOTHING, |(_, told)| *told);
            if before != item.told {
                self.announce(item, before);
            }
        }
        for (path_id, told) in old {
            if new.iter().all(|(kept, _)| *kept != path_id) {
                self.withdrawn.push((told.source(), Nlri { prefix, path_id }));
            }
        }
        stream.set_several(id, new, table);
    }

    fn announce(&mut self, item: Item, before: Told) {
        let source = item.told.source();
        let is_held = !before.is_nothing() && before.source() != source;
        if is_held && self.members.contains(&source) {
            self.personal.entry(source).or_default().push(item.nlri);
        }
        self.announced.push(item);
    }

    fn encode(mut self, stream: &mut Stream, table: &mut Table) -> Written {
        let form = self.policy.form;
        let (mut out, mut written) = (Vec::new(), Written::default());
        let key = |(source, nlri): &(PeerIndex, Nlri)| (*source, nlri.prefix.family());
        self.withdrawn.sort_by_key(key);
        for run in self.withdrawn.chunk_by(|a, b| key(a) == key(b)) {
            let Some((source, _)) = run.first() else { continue };
            let prefixes: Vec<Nlri> = run.iter().map(|(_, nlri)| *nlri).collect();
            let start = out.len();
            wire::encode_withdrawal(&prefixes, form, &mut out);
            self.except(*source, start..out.len(), &mut written);
        }
        self.announced.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        let announced = std::mem::take(&mut self.announced);
        let mut prefixes = Vec::new();
        for run in announced.chunk_by(|a, b| a.key().0 == b.key().0) {
            let Some(first) = run.first() else { continue };
            let source = first.told.source();
            if self.members.len() == 1 && self.members.contains(&source) {
                // Nobody is left who could be told.
                continue;
            }
            prefixes.clear();
            prefixes.extend(run.iter().map(|item| item.nlri));
            let start = out.len();
            let (next_hop, attributes) = self.words(first);
            if wire::encode_announcement(&attributes, next_hop, &prefixes, form, &mut out).is_err()
            {
                // The peers must not go on using what they were told before.
                wire::encode_withdrawal(&prefixes, form, &mut out);
                written.too_long = written.too_long.saturating_add(prefixes.len());
                for item in run {
                    untell(item, stream, table);
                }
            }
            self.except(source, start..out.len(), &mut written);
        }
        for (member, nlris) in &self.personal {
            let mut bytes = Vec::new();
            for run in nlris.chunk_by(|a, b| a.prefix.family() == b.prefix.family()) {
                wire::encode_withdrawal(run, form, &mut bytes);
            }
            written.personal.insert(*member, bytes.into());
        }
        written.bytes = out.into();
        written
    }

    fn words(&self, item: &Item) -> (std::net::IpAddr, wire::Attributes) {
        let family = item.nlri.prefix.family();
        match &item.way {
            Way::Own(path) => {
                self.policy.own_words(&path.attributes, family, item.verdict, self.scope)
            }
            Way::Learned(candidate) => {
                self.policy.learned_words(candidate, family, item.verdict, &item.marks)
            }
        }
    }

    /// Notes that a part is not for the member whose paths it is about.
    fn except(&self, source: PeerIndex, part: Range<usize>, written: &mut Written) {
        if self.members.contains(&source) {
            written.exceptions.entry(source).or_default().push(part);
        }
    }
}

/// Notes that a path was not told after all.
fn untell(item: &Item, stream: &mut Stream, table: &mut Table) {
    if stream.several(item.id).is_empty() {
        stream.set_single(item.id, Told::NOTHING, table);
    } else {
        let mut told = stream.several(item.id).to_vec();
        told.retain(|(path_id, _)| *path_id != item.nlri.path_id);
        stream.set_several(item.id, told, table);
    }
}
