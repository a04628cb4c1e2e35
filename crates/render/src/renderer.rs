//! The tables of a state that changes, and the transaction of each change.

use std::collections::BTreeSet;

use model::desired::policy::{
    PolicyChange, PolicyRules, PolicyState, SetId, SetMember, WorkloadPolicy,
};
use model::net::{Family, IfName};
use model::policy::PolicyId;
use model::ruleset::{Element, Ruleset, Tables, Transaction};

use crate::fragment::{Fragment, Part};
use crate::frame;
use crate::name::{self, Toward};
use crate::path::{self, Ending};
use crate::plan;
use crate::rule;
use crate::set;
use crate::settings::Settings;

mod store;

use store::Store;

/// What fragments are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) state: &'a PolicyState,
    /// The sets with networks that are no single addresses.
    pub(crate) nets: &'a BTreeSet<(SetId, Family)>,
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
        let nets = nets_of(&state);
        let tables = settings.families.iter().map(|family| (*family, Ruleset::default()));
        let store = Store::new(tables.collect());
        let mut renderer = Self { settings, state, nets, store };
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
        let before = self.fragment(&object);
        self.state.apply(change);
        let after = self.fragment(&object);
        self.store.replace(before, after);
    }

    /// Changes addresses one by one: a set of 50,000 is not made anew for one of them.
    fn change_addrs(&mut self, id: SetId, add: &BTreeSet<SetMember>, remove: &BTreeSet<SetMember>) {
        for family in self.settings.families.clone() {
            let set = name::addrs(id, family);
            for element in remove.iter().filter_map(|member| set::one(*member, family)) {
                self.store.remove_element(family, &set, element);
            }
            for element in add.iter().filter_map(|member| set::one(*member, family)) {
                self.store.add_element(family, &set, element);
            }
        }
    }

    /// Changes a set as a whole, and if there were or are no networks in it any
    /// more, the rules that look for them too.
    fn change_set(&mut self, id: SetId, change: &PolicyChange) {
        let had = Family::ALL.map(|family| self.nets.contains(&(id, family)));
        let users = [vec![Object::Set(id)], self.users(id)].concat();
        let before: Vec<Fragment> = users.iter().map(|user| self.fragment(user)).collect();
        self.state.apply(change);
        for family in Family::ALL {
            if set::has_nets(&self.state, id, family) {
                self.nets.insert((id, family));
            } else {
                self.nets.remove(&(id, family));
            }
        }
        let has = Family::ALL.map(|family| self.nets.contains(&(id, family)));
        let changed = if had == has { 1 } else { users.len() };
        for (user, before) in users.iter().zip(before).take(changed) {
            let after = self.fragment(user);
            self.store.replace(before, after);
        }
    }

    /// Returns the policies and profiles whose rules name a set.
    fn users(&self, id: SetId) -> Vec<Object> {
        let names = |rules: &PolicyRules| {
            let mut rules = rules.ingress.iter().chain(&rules.egress);
            rules.any(|rule| {
                [&rule.source, &rule.destination]
                    .iter()
                    .any(|end| end.in_sets.contains(&id) || end.not_in_sets.contains(&id))
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
        let context = Context { settings: &self.settings, state: &self.state, nets: &self.nets };
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
                let names = |toward| (name::policy(id, toward), format!("policy {id}"));
                add_rules(part, context, names, rules);
            }
        }
        Object::Profile(profile) => {
            if let Some(rules) = state.profiles.get(profile) {
                let names = |toward| (name::profile(profile, toward), format!("profile {profile}"));
                add_rules(part, context, names, rules);
            }
        }
        Object::Set(id) => {
            if let Some(members) = state.sets.get(id) {
                set::add(part, *id, members);
            }
        }
    }
}

fn add_rules(
    part: &mut Part<'_>,
    context: &Context<'_>,
    names: impl Fn(Toward) -> (String, String),
    rules: &PolicyRules,
) {
    for (toward, rules) in Toward::BOTH.into_iter().zip([&rules.ingress, &rules.egress]) {
        let (name, note) = names(toward);
        rule::add_chain(part, context, (name, &note), rules);
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
        let rules = path::rules(direction, toward, Ending::Closed, context.settings.marks);
        part.chain(chain.clone(), rules);
        part.element(frame::map_of(map), Element::Dispatch(if_name.clone(), chain));
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
