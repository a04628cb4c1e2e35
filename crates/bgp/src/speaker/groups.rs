//! Groups of peers that are told the same: who is in which, and when they part and meet.
//!
//! A group has one [`Stream`], so what it is told is worded, written and kept once. A peer
//! that does not keep up leaves for a group of its own with a copy of the stream's marks;
//! groups of one policy that have been told everything have been told the same, and become
//! one again.

use std::collections::BTreeSet;

use super::writer::{self, Written};
use super::{Output, Peer, Problem, Speaker};
use crate::export::{Agreement, Policy};
use crate::rib::{DestId, PeerIndex, Stream};
use crate::session::Effect;
use crate::wire::{self, RefreshKind, RouteRefresh};

/// How many destinations are looked at before the peers' queues are looked at again.
const BATCH: usize = 2048;

/// A group's number.
pub(super) type GroupId = u32;

/// Peers that are told the same in the same words.
#[derive(Debug)]
pub(super) struct Group {
    policy: Policy,
    stream: Stream,
    /// The group that it comes from, and the step in which it did; others may follow in
    /// that step.
    origin: Option<(GroupId, u64)>,
}

impl Speaker {
    /// Puts a peer whose session is new into a group that has been told nothing.
    pub(super) fn join(&mut self, index: PeerIndex) {
        let Some(policy) = self.peers.get(&index).and_then(Peer::policy) else { return };
        let is_open = |group: &&mut Group| group.stream.is_untold() && group.policy == policy;
        if let Some(group) = self.groups.values_mut().find(is_open) {
            group.stream.members.insert(index);
        } else {
            let mut stream = Stream::default();
            stream.members.insert(index);
            stream.mark_all(&mut self.table);
            self.add_group(Group { policy, stream, origin: None });
        }
        self.active.extend(self.group_of(index));
    }

    /// Takes a peer out of its group.
    pub(super) fn leave(&mut self, index: PeerIndex) {
        let Some(id) = self.group_of(index) else { return };
        if let Some(group) = self.groups.get_mut(&id) {
            group.stream.members.remove(&index);
        }
        self.drop_if_empty(id);
    }

    pub(super) fn group_of(&self, index: PeerIndex) -> Option<GroupId> {
        let has = |group: &Group| group.stream.members.contains(&index);
        self.groups.iter().find(|(_, group)| has(group)).map(|(id, _)| *id)
    }

    /// Returns how many paths a peer holds from us.
    pub(super) fn advertised(&self, index: PeerIndex) -> usize {
        let group = self.group_of(index).and_then(|id| self.groups.get(&id));
        group.map_or(0, |group| group.stream.advertised(index))
    }

    fn add_group(&mut self, group: Group) -> GroupId {
        let id = self.next_group;
        self.next_group = self.next_group.saturating_add(1);
        self.groups.insert(id, group);
        self.active.insert(id);
        id
    }

    fn drop_if_empty(&mut self, id: GroupId) {
        if self.groups.get(&id).is_some_and(|group| group.stream.members.is_empty())
            && let Some(group) = self.groups.remove(&id)
        {
            self.active.remove(&id);
            group.stream.release_all(&mut self.table);
        }
    }

    /// Takes a peer to a group that is told everything again, by the policy of now.
    pub(super) fn tell_again(&mut self, index: PeerIndex) {
        let Some(old) = self.group_of(index) else { return };
        let Some(policy) = self.peers.get(&index).and_then(Peer::policy) else { return };
        let origin = Some((old, self.step));
        let is_same = |group: &&mut Group| group.origin == origin && group.policy == policy;
        if let Some(group) = self.groups.values_mut().find(is_same) {
            group.stream.members.insert(index);
            self.leave_for(old, index);
            return;
        }
        let Some(group) = self.groups.get_mut(&old) else { return };
        let mut stream = group.stream.split(BTreeSet::from([index]), &mut self.table);
        stream.forget_paths(&mut self.table);
        self.add_group(Group { policy, stream, origin });
        self.drop_if_empty(old);
    }

    /// Has all groups be told everything again, in the words of now.
    pub(super) fn forget_words(&mut self) {
        for (id, group) in &mut self.groups {
            group.stream.forget_paths(&mut self.table);
            self.active.insert(*id);
        }
    }

    /// Has groups whose rules ask for interfaces be judged anew: what passes now is told, what does
    /// not is withdrawn.
    pub(super) fn judge_interfaces_anew(&mut self) {
        for (id, group) in &mut self.groups {
            if group.policy.asks_for_interfaces() {
                group.stream.forget_paths(&mut self.table);
                self.active.insert(*id);
            }
        }
    }

    fn leave_for(&mut self, old: GroupId, index: PeerIndex) {
        if let Some(group) = self.groups.get_mut(&old) {
            group.stream.members.remove(&index);
        }
        self.drop_if_empty(old);
    }

    /// Does a peer's group still have its policy?
    pub(super) fn is_policy_new(&self, index: PeerIndex) -> bool {
        let group = self.group_of(index).and_then(|id| self.groups.get(&id));
        let policy = self.peers.get(&index).and_then(Peer::policy);
        group.is_some_and(|group| Some(&group.policy) != policy.as_ref())
    }

    /// Notes that all groups must look at destinations.
    pub(super) fn look_at(&mut self, ids: &[DestId]) {
        for (number, group) in &mut self.groups {
            for id in ids {
                group.stream.mark(*id, &mut self.table);
            }
            if !ids.is_empty() {
                self.active.insert(*number);
            }
        }
        for id in ids {
            self.table.forget_unused(*id);
        }
    }

    /// Tells groups what they have not been told yet, as far as their members keep up.
    pub(super) fn flush(&mut self, outputs: &mut Vec<Output>) {
        while let Some(id) = self.active.pop_first() {
            while self.has_work(id) && self.write(id, outputs) {}
            let is_settled = self.groups.get(&id).is_some_and(|each| each.stream.is_settled());
            if is_settled {
                self.finish(id, outputs);
                self.merge(id);
            }
        }
    }

    fn has_work(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_some_and(|group| !group.stream.is_settled())
    }

    /// Writes one batch to all members; returns false if that must wait for them.
    fn write(&mut self, id: GroupId, outputs: &mut Vec<Output>) -> bool {
        let Some(group) = self.groups.get_mut(&id) else { return false };
        let unsent = |index: &PeerIndex| self.peers.get(index).map_or(0, Peer::unsent);
        let late: BTreeSet<PeerIndex> = group
            .stream
            .members
            .iter()
            .copied()
            .filter(|each| unsent(each) >= self.config.send_limit)
            .collect();
        if !late.is_empty() {
            if !group.stream.members.iter().any(|each| unsent(each) == 0) {
                return false;
            }
            // Somebody waits idly for the late ones: they go on alone.
            let policy = group.policy.clone();
            let stream = group.stream.split(late, &mut self.table);
            self.add_group(Group { policy, stream, origin: None });
            return true;
        }
        let written =
            writer::write(&mut group.stream, &group.policy, &self.scope, &mut self.table, BATCH);
        let members = group.stream.members.clone();
        self.deliver(&members, &written, outputs);
        true
    }

    fn deliver(
        &mut self,
        members: &BTreeSet<PeerIndex>,
        written: &Written,
        outputs: &mut Vec<Output>,
    ) {
        for index in members {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            if written.too_long != 0 {
                let name = peer.session.config.name.clone();
                outputs.push(Output::Report(Problem::TooLong { name, count: written.too_long }));
            }
            for bytes in written.for_member(*index) {
                outputs.extend(peer.send(bytes));
            }
        }
    }

    /// Says to members that everything has been told, where that is owed and true.
    fn finish(&mut self, id: GroupId, outputs: &mut Vec<Output>) {
        let is_restarting = self.is_restarting();
        let Some(group) = self.groups.get(&id) else { return };
        for index in &group.stream.members {
            if let Some(peer) = self.peers.get_mut(index) {
                outputs.extend(peer.end_of_rib(is_restarting));
            }
        }
    }

    /// Joins a group that has been told everything to another one of which that is true.
    fn merge(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let is_like = |(other, each): &(&GroupId, &Group)| {
            **other != id && each.stream.is_settled() && each.policy == group.policy
        };
        let Some(other) = self.groups.iter().find(is_like).map(|(other, _)| *other) else { return };
        let (kept, gone) = (id.min(other), id.max(other));
        let Some(gone) = self.groups.remove(&gone) else { return };
        if let Some(kept) = self.groups.get_mut(&kept) {
            kept.stream.members.extend(&gone.stream.members);
        }
        gone.stream.release_all(&mut self.table);
    }
}

impl Peer {
    /// Returns how the peer is told of routes, if its session is up.
    fn policy(&self) -> Option<Policy> {
        let local_addr = self.session.established()?.local_addr?;
        let agreement = Agreement {
            form: self.session.form(),
            families: self.session.families(),
            foreign_next_hops: self.session.foreign_next_hops(),
        };
        Some(Policy::new(&self.session.config, local_addr, agreement))
    }

    fn unsent(&self) -> usize {
        self.session.established().map_or(0, |connection| connection.unsent)
    }

    /// Says that everything has been told, if that is owed and true.
    fn end_of_rib(&mut self, is_restarting: bool) -> Vec<Output> {
        let families = self.session.families();
        let mut outputs = Vec::new();
        // RFC 4724 §4.1: a restarting speaker is done only when it has heard its peers.
        if self.owes_end_of_rib && !is_restarting {
            self.owes_end_of_rib = false;
            for family in families.iter() {
                outputs.extend(self.send(wire::encode_end_of_rib(family).into()));
            }
        }
        if self.owes_refresh_end {
            self.owes_refresh_end = false;
            for family in families.iter() {
                let end = RouteRefresh { family: family.into(), kind: RefreshKind::End };
                outputs.extend(self.send(end.encode().into()));
            }
        }
        outputs
    }

    /// Sends over the Established connection, if there is one.
    pub(super) fn send(&mut self, bytes: bytes::Bytes) -> Vec<Output> {
        let Some(id) = self.session.established().map(|each| each.id) else { return Vec::new() };
        let effects = self.session.send(id, bytes);
        let output = |effect| if let Effect::Output(output) = effect { Some(output) } else { None };
        effects.into_iter().filter_map(output).collect()
    }
}
