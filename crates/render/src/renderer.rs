//! The tables of a state that changes, and the transaction of each change.

use std::collections::BTreeSet;

use model::desired::policy::{
    CompiledRule, PolicyChange, PolicyRules, PolicyState, SetId, SetMember, WorkloadPolicy,
};
use model::net::{Family, IfName};
use model::policy::PolicyId;
use model::ruleset::{Element, Ruleset, Tables, Transaction};
use model::vrf::Zone;

use crate::fragment::{Fragment, Part};
use crate::frame;
use crate::limits;
use crate::name::{self, Toward};
use crate::path::{self, Denials, Ending};
use crate::plan;
use crate::rule;
use crate::set::{self, Sharing};
use crate::settings::{Counting, Settings, Spoofing};
use crate::tenants;

mod store;
mod used;

use store::Store;
use used::{Used, Whose};

/// What fragments are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) state: &'a PolicyState,
    /// The sets with networks that are no single addresses.
    pub(crate) nets: &'a BTreeSet<(SetId, Family)>,
    /// Which sets share one of the kernel's.
    pub(crate) sharing: Sharing,
    /// The directions and zones in which policies are looked at.
    used: &'a Used,
}

/// An object that adds a fragment to the tables.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Object {
    Frame,
    Workload(IfName),
    Policy(PolicyId),
    Profile(String),
    Set(SetId),
}

/// A state and its tables.
#[derive(Clone, Debug)]
pub struct Renderer {
    settings: Settings,
    state: PolicyState,
    nets: BTreeSet<(SetId, Family)>,
    sharing: Sharing,
    used: Used,
    store: Store,
}

/// Returns the tables of `state`.
#[must_use]
pub fn render(state: &PolicyState, settings: &Settings) -> Tables {
    Renderer::new(state.clone(), settings.clone()).store.into_tables()
}

impl Renderer {
    /// Makes the tables of `state`.
    #[must_use]
    pub fn new(state: PolicyState, settings: Settings) -> Self {
        let (nets, used) = (nets_of(&state), Used::of(&state));
        let sharing = Sharing::of(state.sets.keys().copied(), settings.named_sets);
        let tables = settings.families.iter().map(|family| (*family, Ruleset::default()));
        let store = Store::new(tables.collect());
        let mut renderer = Self { settings, state, nets, sharing, used, store };
        for object in renderer.objects() {
            let fragment = renderer.fragment(&object);
            renderer.store.replace(Fragment::default(), fragment);
        }
        renderer.store.forget_changes();
        renderer
    }

    /// Returns the tables as they should be.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        self.store.tables()
    }

    /// Returns what they are made of.
    #[must_use]
    pub const fn state(&self) -> &PolicyState {
        &self.state
    }

    /// Makes `changes`, and returns the transaction that makes them in the
    /// kernel, provided that it holds [`Renderer::tables`] as they were.
    pub fn apply(&mut self, changes: &[PolicyChange]) -> Transaction {
        for change in changes {
            self.change(change);
        }
        self.transaction()
    }

    /// Takes other settings, and returns the transaction for them.
    ///
    /// All is made anew, and what stays the same is no part of the transaction.
    pub fn configure(&mut self, settings: Settings) -> Transaction {
        let renderer = Self::new(std::mem::take(&mut self.state), settings);
        let before = model::ruleset::Snapshot::of(self.tables(), 0);
        *self = renderer;
        let transaction = plan::plan(self.tables(), &before);
        Transaction { generation: None, ..transaction }
    }

    fn transaction(&mut self) -> Transaction {
        let mut steps = Vec::new();
        for (family, before, after) in self.store.take_changes() {
            let planned = plan::table_steps(family, &before, &after);
            steps.extend(planned.into_iter().map(|step| (family, step)));
        }
        Transaction { generation: None, steps }
    }

    fn change(&mut self, change: &PolicyChange) {
        let object = match change {
            PolicyChange::Workload(name, _) => Object::Workload(name.clone()),
            PolicyChange::Host(..) => Object::Frame,
            PolicyChange::Policy(id, _) => Object::Policy(id.clone()),
            PolicyChange::Profile(name, _) => Object::Profile(name.clone()),
            PolicyChange::SetAdded { id, .. } | PolicyChange::SetRemoved(id) => {
                return self.change_set(*id, change);
            }
            PolicyChange::SetMembers { id, add, remove } => {
                let is_net = |member: &SetMember| {
                    Family::ALL.iter().any(|family| set::net(*member, *family).is_some())
                };
                if add.iter().chain(remove).any(is_net) {
                    return self.change_set(*id, change);
                }
                self.change_addrs(*id, add, remove);
                return self.state.apply(change);
            }
        };
        let (less, more) = used::uses_of_change(&self.state, change);
        let mut objects = vec![object];
        objects.extend(self.changes_spoofing(change).then_some(Object::Frame));
        let flipped = self.used.flipped(&less, &more).into_iter().map(|whose| match whose {
            Whose::Policy(id, _) => Object::Policy(id),
            Whose::Profile(name) => Object::Profile(name),
        });
        // A policy may be so in both directions.
        let flipped: BTreeSet<Object> = flipped.collect();
        objects.extend(flipped);
        let before: Vec<Fragment> = objects.iter().map(|object| self.fragment(object)).collect();
        self.state.apply(change);
        self.used.replace(&less, &more);
        for (object, before) in objects.iter().zip(before) {
            let after = self.fragment(object);
            self.store.replace(before, after);
        }
    }

    /// May a workload send from other networks than before?
    fn changes_spoofing(&self, change: &PolicyChange) -> bool {
        let PolicyChange::Workload(name, after) = change else { return false };
        let of = |workload: Option<&WorkloadPolicy>| {
            let of = |workload: &WorkloadPolicy| {
                let may_send = workload.zone() != Zone::Nowhere;
                may_send.then(|| workload.allowed_sources.clone())
            };
            workload.and_then(of).unwrap_or_default()
        };
        let before = of(self.state.workloads.get(name));
        self.settings.spoofing == Spoofing::Any && before != of(after.as_ref())
    }

    /// Changes addresses one by one: a set of 50,000 is not made anew for one of them.
    fn change_addrs(&mut self, id: SetId, add: &BTreeSet<SetMember>, remove: &BTreeSet<SetMember>) {
        for family in self.settings.families.clone() {
            let sharing = self.sharing;
            let element = |member: &SetMember| sharing.element(id, *member, family);
            let set = sharing.name(id, family);
            for element in remove.iter().filter_map(element) {
                self.store.remove_element(family, &set, element);
            }
            for element in add.iter().filter_map(element) {
                self.store.add_element(family, &set, element);
            }
        }
    }

    /// Changes a set as a whole, and if there were or are no networks in it any
    /// more, the rules that look for them too; everything, if the number of sets
    /// has others share one now.
    fn change_set(&mut self, id: SetId, change: &PolicyChange) {
        let sharing = self.sharing_after(id, change);
        let this = Object::Set(id);
        let objects = if sharing == self.sharing {
            [vec![this], self.users(id)].concat()
        } else {
            // The frame comes first: it makes the set that is shared.
            let others = self.objects().into_iter().filter(|object| *object != this);
            others.chain([this.clone()]).collect()
        };
        let before: Vec<Fragment> = objects.iter().map(|object| self.fragment(object)).collect();
        let had = Family::ALL.map(|family| self.nets.contains(&(id, family)));
        self.state.apply(change);
        for family in Family::ALL {
            if set::has_nets(&self.state, id, family) {
                self.nets.insert((id, family));
            } else {
                self.nets.remove(&(id, family));
            }
        }
        let has = Family::ALL.map(|family| self.nets.contains(&(id, family)));
        let is_only_this = had == has && sharing == self.sharing;
        self.sharing = sharing;
        let changed = if is_only_this { 1 } else { objects.len() };
        for (object, before) in objects.iter().zip(before).take(changed) {
            let after = self.fragment(object);
            self.store.replace(before, after);
        }
    }

    /// Returns which sets will share one of the kernel's after a set's change.
    fn sharing_after(&self, id: SetId, change: &PolicyChange) -> Sharing {
        let is_there = !matches!(change, PolicyChange::SetRemoved(_));
        let others = self.state.sets.keys().filter(|other| **other != id);
        let ids = others.copied().chain(is_there.then_some(id));
        Sharing::of(ids, self.settings.named_sets)
    }

    /// Returns the policies and profiles whose rules name a set.
    fn users(&self, id: SetId) -> Vec<Object> {
        // Rules name the default zone's.
        let ids: Vec<SetId> = self.used.all_zones().iter().map(|zone| id.in_zone(*zone)).collect();
        let names = |rules: &PolicyRules| {
            let mut rules = rules.ingress.iter().chain(&rules.egress);
            rules.any(|rule| {
                [&rule.source, &rule.destination].iter().any(|end| {
                    end.in_sets.iter().chain(&end.not_in_sets).any(|id| ids.contains(id))
                })
            })
        };
        let policies = self.state.policies.iter().filter(|(_, rules)| names(rules));
        let profiles = self.state.profiles.iter().filter(|(_, rules)| names(rules));
        let policies = policies.map(|(id, _)| Object::Policy(id.clone()));
        policies.chain(profiles.map(|(name, _)| Object::Profile(name.clone()))).collect()
    }

    fn objects(&self) -> Vec<Object> {
        let state = &self.state;
        let mut objects = vec![Object::Frame];
        objects.extend(state.sets.keys().map(|id| Object::Set(*id)));
        objects.extend(state.policies.keys().map(|id| Object::Policy(id.clone())));
        objects.extend(state.profiles.keys().map(|name| Object::Profile(name.clone())));
        objects.extend(state.workloads.keys().map(|name| Object::Workload(name.clone())));
        objects
    }

    /// Returns what an object adds, which is nothing if it is not there.
    fn fragment(&self, object: &Object) -> Fragment {
        let Self { settings, state, nets, used, .. } = self;
        let context = Context { settings, state, nets, sharing: self.sharing, used };
        if *object == Object::Frame {
            return frame::fragment(&context);
        }
        let mut fragment = Fragment::default();
        for family in &self.settings.families {
            add_object(&mut fragment.part(*family), &context, object);
        }
        fragment
    }
}

fn add_object(part: &mut Part<'_>, context: &Context<'_>, object: &Object) {
    let state = context.state;
    match object {
        Object::Frame => {}
        Object::Workload(name) => {
            if let Some(workload) = state.workloads.get(name) {
                add_workload(part, context, name, workload);
            }
        }
        Object::Policy(id) => {
            if let Some(rules) = state.policies.get(id) {
                let note = format!("policy {id}");
                for toward in Toward::BOTH {
                    for zone in context.used.zones(&Whose::Policy(id.clone(), toward)) {
                        let name = name::policy(id, toward, zone);
                        rule::add_chain(part, context, (name, &note), (of(rules, toward), zone));
                    }
                }
            }
        }
        Object::Profile(profile) => {
            if let Some(rules) = state.profiles.get(profile) {
                let note = format!("profile {profile}");
                let mut zones = context.used.zones(&Whose::Profile(profile.clone()));
                if zones.is_empty() {
                    zones.insert(Zone::Default);
                }
                for zone in zones {
                    for toward in Toward::BOTH {
                        let name = name::profile(profile, toward, zone);
                        rule::add_chain(part, context, (name, &note), (of(rules, toward), zone));
                    }
                }
            }
        }
        Object::Set(id) => {
            if let Some(members) = state.sets.get(id) {
                set::add(part, context.sharing, *id, members);
            }
        }
    }
}

fn of(rules: &PolicyRules, toward: Toward) -> &[CompiledRule] {
    match toward {
        Toward::Ingress => &rules.ingress,
        Toward::Egress => &rules.egress,
    }
}

fn add_workload(
    part: &mut Part<'_>,
    context: &Context<'_>,
    if_name: &IfName,
    workload: &WorkloadPolicy,
) {
    for (toward, prefix, map) in [
        (Toward::Ingress, "cali-tw-", frame::TO_WORKLOAD),
        (Toward::Egress, "cali-fw-", frame::FROM_WORKLOAD),
    ] {
        let direction = match toward {
            Toward::Ingress => &workload.path.ingress,
            Toward::Egress => &workload.path.egress,
        };
        let chain = name::path(prefix, direction);
        let denials = (context.settings.marks, Denials::of(context.settings));
        let rules = path::rules(direction, toward, Ending::Closed, denials);
        part.chain(chain.clone(), rules);
        part.element(frame::map_of(map), Element::Dispatch(if_name.clone(), chain));
    }
    if context.settings.counting == Counting::Possible {
        limits::add(part, &context.settings.tenants, (if_name, workload.controls));
    }
    tenants::add_workload(part, if_name, workload);
    if workload.zone() == Zone::Nowhere {
        // It sends from nowhere.
        return;
    }
    let family = part.family;
    for addr in workload.addrs.iter().filter(|addr| Family::of(**addr) == family) {
        match workload.mac {
            Some(mac) => {
                let source = Element::SourceWithMac(if_name.clone(), mac, *addr);
                part.element(frame::SOURCES_WITH_MAC, source);
            }
            None => part.element(frame::SOURCES, Element::Source(if_name.clone(), *addr)),
        }
    }
}

fn nets_of(state: &PolicyState) -> BTreeSet<(SetId, Family)> {
    let pairs = state.sets.keys().flat_map(|id| Family::ALL.map(|family| (*id, family)));
    pairs.filter(|(id, family)| set::has_nets(state, *id, *family)).collect()
}
