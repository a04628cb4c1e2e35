//! The sets that active rules name, kept up to date member by member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::desired::policy::{PolicyChange, SetId, SetMember};
use model::id::NamespacedName;
use model::vrf::Zone;

use super::index::{Index, ItemKey, SelectorKey};
use super::question::{Question, Reach};
use super::services::Services;
use super::things::{Placed, Things};
use super::zones;

/// The sets of the state.
pub(super) type Members = BTreeMap<SetId, BTreeSet<SetMember>>;

/// Questions, and what is needed to keep the answers right.
#[derive(Debug, Default)]
pub(super) struct Sets {
    questions: BTreeMap<SetId, Asked>,
    /// Selectors of open sets, and what they match.
    index: Index,
    by_selector: BTreeMap<SelectorKey, BTreeSet<SetId>>,
    by_service: BTreeMap<NamespacedName, BTreeSet<SetId>>,
    /// How often a member is given beyond the first time.
    extra: BTreeMap<SetId, BTreeMap<SetMember, u32>>,
    /// Sets that are to be opened, closed or forgotten.
    touched: BTreeSet<SetId>,
    differences: BTreeMap<SetId, Difference>,
}

#[derive(Debug)]
struct Asked {
    question: Arc<Question>,
    /// For whose endpoints it is answered.
    zone: Zone,
    /// How many policies and profiles name it; those name the default zone's.
    holders: u32,
    /// How many of them are active.
    users: u32,
    is_open: bool,
    selector: Option<SelectorKey>,
}

#[derive(Debug, Default)]
struct Difference {
    add: BTreeSet<SetMember>,
    remove: BTreeSet<SetMember>,
}

/// Changes of sets: those that come before all others, and those that come after.
#[derive(Debug, Default)]
pub(super) struct SetChanges {
    pub(super) first: Vec<PolicyChange>,
    pub(super) last: Vec<PolicyChange>,
}

impl Sets {
    /// Returns how much is kept of anything.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Vec<usize> {
        let by = self.by_selector.len() + self.by_service.len();
        let noted = self.touched.len() + self.differences.len();
        vec![self.questions.len(), self.index.kept(), by, self.extra.len(), noted]
    }

    /// Takes note that rules name the answer to a question.
    pub(super) fn hold(&mut self, question: Question) -> SetId {
        let id = question.id();
        let asked = self.questions.entry(id).or_insert_with(|| Asked {
            question: Arc::new(question),
            zone: Zone::Default,
            holders: 0,
            users: 0,
            is_open: false,
            selector: None,
        });
        asked.holders = asked.holders.saturating_add(1);
        id
    }

    /// Takes note that they do no more.
    pub(super) fn release(&mut self, id: SetId) {
        if let Some(asked) = self.questions.get_mut(&id) {
            asked.holders = asked.holders.saturating_sub(1);
            self.touched.insert(id);
        }
    }

    /// Takes note that rules which name it became active for endpoints of `zone`.
    pub(super) fn start_use(&mut self, id: SetId, zone: Zone) {
        if zone != Zone::Default
            && let Some(question) = self.questions.get(&id).map(|asked| Arc::clone(&asked.question))
        {
            self.questions.entry(id.in_zone(zone)).or_insert(Asked {
                question,
                zone,
                holders: 0,
                users: 0,
                is_open: false,
                selector: None,
            });
        }
        let id = id.in_zone(zone);
        if let Some(asked) = self.questions.get_mut(&id) {
            asked.users = asked.users.saturating_add(1);
            self.touched.insert(id);
        }
    }

    /// Takes note that they are active no more.
    pub(super) fn end_use(&mut self, id: SetId, zone: Zone) {
        let id = id.in_zone(zone);
        if let Some(asked) = self.questions.get_mut(&id) {
            asked.users = asked.users.saturating_sub(1);
            self.touched.insert(id);
        }
    }

    /// Follows a thing from what it was to what it is.
    pub(super) fn update(
        &mut self,
        members: &mut Members,
        key: ItemKey,
        old: Option<&Placed>,
        new: Option<&Placed>,
    ) {
        let before = self.index.selectors_of(key).to_vec();
        let labels = [old, new].map(|placed| placed.map(|placed| &placed.labels));
        if labels.first() != labels.last() {
            let [old, new] = labels;
            self.index.update(key, old, new);
        }
        let after = self.index.selectors_of(key).to_vec();
        let is_same = match (old, new) {
            (Some(old), Some(new)) => old.has_same_members(new),
            _ => false,
        };
        let all: BTreeSet<SelectorKey> = before.iter().chain(&after).copied().collect();
        for selector in all {
            let was = old.filter(|_| before.binary_search(&selector).is_ok());
            let is = new.filter(|_| after.binary_search(&selector).is_ok());
            if is_same && was.is_some() && is.is_some() {
                continue;
            }
            let ids = self.by_selector.get(&selector).cloned().unwrap_or_default();
            for id in ids {
                self.exchange(members, id, (was, is));
            }
        }
    }

    /// Replaces what a thing gave to a set by what it gives.
    fn exchange(
        &mut self,
        members: &mut Members,
        id: SetId,
        (was, is): (Option<&Placed>, Option<&Placed>),
    ) {
        let Some(asked) = self.questions.get(&id) else { return };
        let given = |placed: Option<&Placed>| match placed {
            Some(placed) => members_of(asked, placed),
            None => BTreeSet::new(),
        };
        let (was, is) = (given(was), given(is));
        for member in was.difference(&is) {
            self.take_away(members, id, *member);
        }
        for member in is.difference(&was) {
            self.give(members, id, *member);
        }
    }

    fn give(&mut self, members: &mut Members, id: SetId, member: SetMember) {
        let Some(set) = members.get_mut(&id) else { return };
        if !set.insert(member) {
            let count = self.extra.entry(id).or_default().entry(member).or_default();
            *count = count.saturating_add(1);
            return;
        }
        let difference = self.differences.entry(id).or_default();
        if !difference.remove.remove(&member) {
            difference.add.insert(member);
        }
    }

    fn take_away(&mut self, members: &mut Members, id: SetId, member: SetMember) {
        let Some(set) = members.get_mut(&id) else { return };
        if let Some(extra) = self.extra.get_mut(&id)
            && let Some(count) = extra.get_mut(&member)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                extra.remove(&member);
            }
            return;
        }
        set.remove(&member);
        let difference = self.differences.entry(id).or_default();
        if !difference.add.remove(&member) {
            difference.remove.insert(member);
        }
    }

    /// Asks again who answers for a Service.
    pub(super) fn update_service(
        &mut self,
        members: &mut Members,
        service: &NamespacedName,
        services: &Services,
    ) {
        for id in self.by_service.get(service).cloned().unwrap_or_default() {
            let Some(asked) = self.questions.get(&id) else { continue };
            let now = services.members(&asked.question, asked.zone);
            let before = members.get(&id).cloned().unwrap_or_default();
            for member in before.difference(&now) {
                self.take_away(members, id, *member);
            }
            for member in now.difference(&before) {
                self.give(members, id, *member);
            }
        }
    }

    /// Opens what is used, closes what is not, and returns what has changed since the last time.
    pub(super) fn settle(
        &mut self,
        members: &mut Members,
        things: &Things,
        services: &Services,
    ) -> SetChanges {
        let mut changes = SetChanges::default();
        for id in std::mem::take(&mut self.touched) {
            let Some(asked) = self.questions.get(&id) else { continue };
            let (is_used, is_held, is_open) = (asked.users > 0, asked.holders > 0, asked.is_open);
            if is_used && !is_open {
                let opened = self.open(id, things, services);
                members.insert(id, opened.clone());
                changes.first.push(PolicyChange::SetAdded { id, members: opened });
            }
            if !is_used && is_open {
                self.close(id);
                members.remove(&id);
                changes.last.push(PolicyChange::SetRemoved(id));
            }
            if !is_used && !is_held {
                self.questions.remove(&id);
            }
        }
        for (id, Difference { add, remove }) in std::mem::take(&mut self.differences) {
            if members.contains_key(&id) && !(add.is_empty() && remove.is_empty()) {
                changes.first.push(PolicyChange::SetMembers { id, add, remove });
            }
        }
        changes
    }

    fn open(&mut self, id: SetId, things: &Things, services: &Services) -> BTreeSet<SetMember> {
        let Some(asked) = self.questions.get_mut(&id) else { return BTreeSet::new() };
        asked.is_open = true;
        let question = Arc::clone(&asked.question);
        if let Some(service) = question.service() {
            self.by_service.entry(service.clone()).or_default().insert(id);
            return services.members(&question, asked.zone);
        }
        let Some(selector) = question.selector() else { return BTreeSet::new() };
        let key = self.index.add(selector, |item| things.labels(item));
        asked.selector = Some(key);
        self.by_selector.entry(key).or_default().insert(id);
        let asked = &*asked;
        let mut members = BTreeSet::new();
        let found = self.index.items_of(key).iter().filter_map(|item| things.get(*item));
        for member in found.flat_map(|placed| members_of(asked, placed)) {
            if !members.insert(member) {
                let count = self.extra.entry(id).or_default().entry(member).or_default();
                *count = count.saturating_add(1);
            }
        }
        members
    }

    fn close(&mut self, id: SetId) {
        let Some(asked) = self.questions.get_mut(&id) else { return };
        asked.is_open = false;
        self.extra.remove(&id);
        if let Some(service) = asked.question.service()
            && let Some(ids) = self.by_service.get_mut(service)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_service.remove(service);
            }
        }
        if let Some(key) = asked.selector.take()
            && let Some(ids) = self.by_selector.get_mut(&key)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_selector.remove(&key);
                self.index.remove(key);
            }
        }
    }

    /// Returns how many selectors are looked at, and how often one was tried.
    pub(super) fn work(&self) -> (usize, u64) {
        (self.by_selector.len(), self.index.tries())
    }
}

/// Returns what a thing that matches gives to the set.
fn members_of(asked: &Asked, placed: &Placed) -> BTreeSet<SetMember> {
    let thing = &placed.thing;
    if !zones::means(placed.home, asked.zone) {
        return BTreeSet::new();
    }
    match &*asked.question {
        Question::Selected(_) => thing.nets.iter().copied().map(SetMember::Net).collect(),
        Question::NamedPort { name, protocol, reach, .. } => {
            let is_meant = *reach == Reach::Cluster || thing.local.is_some();
            let ports = thing.ports.iter().filter(|_| is_meant);
            let found = ports.filter(|port| *port.name == **name && port.protocol == *protocol);
            found
                .flat_map(|port| {
                    let addrs = thing.nets.iter().map(model::net::Cidr::addr);
                    addrs.map(|addr| SetMember::Port(addr, *protocol, port.number))
                })
                .collect()
        }
        Question::ServiceAddrs(_) | Question::ServicePorts(_) => BTreeSet::new(),
    }
}
