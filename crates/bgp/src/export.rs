//! Which routes peers are told, and in what words (RFC 4271 §5.1, §9.2; RFC 4456; RFC 9234;
//! Calico's export rules).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::bgp_filter::{FilterRule, SessionKind};
use model::desired::{Advertisements, BgpSession, Filters, Reflection, Role};
use model::net::{Asn, Cidr, Family, zone};
use model::peer::{Community, NextHopMode, RoutePriority};

use crate::filter::{self, Route, Verdict};
use crate::ranges::Ranges;
use crate::rib::{Candidate, DEFAULT_LOCAL_PREF, Source};
use crate::ways::Ways;
use crate::wire::{Attributes, Families, Form};

/// How a peer is told of routes. Peers with the same policy are told in the same words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Policy {
    is_internal: bool,
    local_asn: Asn,
    /// Our end of the session, the next hop of what we originate.
    local_addr: IpAddr,
    next_hop: NextHopMode,
    reflection: Option<Reflection>,
    filters: Filters,
    is_policy_required: bool,
    role: Option<Role>,
    pub(crate) form: Form,
    families: Families,
    /// For which families a next hop of the other family is agreed on (RFC 8950).
    foreign_next_hops: Families,
}

/// What was agreed on in a session beside its configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreement {
    pub(crate) form: Form,
    pub(crate) families: Families,
    pub(crate) foreign_next_hops: Families,
}

/// What all peers are told from, in a form that is quick to ask.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Scope {
    /// What we originate for workloads; Services' prefixes claim nothing.
    own: Ranges,
    exportable: Ranges,
    not_exported: Ranges,
    /// What learned routes inside a range are marked with.
    marks: BTreeMap<Cidr, BTreeSet<Community>>,
    /// The priority of what we originate.
    priority: RoutePriority,
    /// Which interface leads where.
    pub(crate) ways: Ways,
}

impl Scope {
    pub(crate) fn of(advertisements: &Advertisements, ways: Ways) -> Self {
        Self {
            own: advertisements
                .originated
                .iter()
                .filter(|(_, origination)| !origination.is_service)
                .map(|(cidr, _)| *cidr)
                .collect(),
            exportable: advertisements.exportable.iter().copied().collect(),
            not_exported: advertisements.not_exported.iter().copied().collect(),
            marks: advertisements.marks.clone(),
            priority: advertisements.priority,
            ways,
        }
    }

    /// Returns the ranges in which something may now be told otherwise than before.
    pub(crate) fn difference(&self, old: &Self) -> [Ranges; 3] {
        [
            self.own.difference(&old.own),
            self.exportable.difference(&old.exportable),
            self.not_exported.difference(&old.not_exported),
        ]
    }

    /// Are routes told in other words than before?
    pub(crate) fn words_differ(&self, old: &Self) -> bool {
        (&self.marks, self.priority) != (&old.marks, old.priority)
    }

    /// Returns the LOCAL_PREF of what we originate.
    fn normal_local_pref(&self, family: Family) -> u32 {
        filter::local_pref_of(self.priority.of(family))
    }

    /// Returns what a learned route to `cidr` is marked with.
    pub(crate) fn marks_of(&self, cidr: &Cidr) -> BTreeSet<Community> {
        let covering = self.marks.iter().filter(|(range, _)| range.covers(cidr));
        covering.flat_map(|(_, communities)| communities.iter().copied()).collect()
    }

    /// May `cidr`, learned by BGP, be passed on at all?
    ///
    /// What lies inside a prefix of ours is a leftover of somebody's and stays here,
    /// unless it is preferred to a normal route: then a workload is moving.
    fn passes_learned(&self, cidr: &Cidr, attributes: &Attributes) -> bool {
        let is_elevated = local_pref(attributes) > self.normal_local_pref(cidr.family());
        self.exportable.cover(cidr)
            && !self.not_exported.cover(cidr)
            && (is_elevated || !self.own.cover(cidr))
    }
}

impl Policy {
    pub(crate) fn new(session: &BgpSession, local_addr: IpAddr, agreement: Agreement) -> Self {
        Self {
            is_internal: session.is_internal(),
            local_asn: session.local_asn,
            local_addr: zone::split(local_addr).0,
            next_hop: session.next_hop,
            reflection: session.reflection,
            filters: session.export.clone(),
            is_policy_required: session.requires_policy,
            role: session.role,
            form: agreement.form,
            families: agreement.families,
            foreign_next_hops: agreement.foreign_next_hops,
        }
    }

    /// Do rules of any family ask for interfaces?
    pub(crate) fn asks_for_interfaces(&self) -> bool {
        asks_for_interfaces(&self.filters)
    }

    pub(crate) fn rules(&self, family: Family) -> &[FilterRule] {
        self.filters.of(family).unwrap_or_default()
    }

    /// Does the peer take several paths of a prefix of `family` (RFC 7911)?
    pub(crate) fn sends_several(&self, family: Family) -> bool {
        self.form.add_path.contains(family)
    }

    fn session_kind(&self) -> SessionKind {
        if self.is_internal { SessionKind::Internal } else { SessionKind::External }
    }

    /// Is anything of `family` told at all?
    fn carries(&self, family: Family) -> bool {
        // RFC 8212 §2.2: without a policy nothing goes to another AS.
        let lacks_policy = self.is_policy_required && !self.is_internal;
        self.families.contains(family) && !(lacks_policy && self.filters.of(family).is_none())
    }

    fn is_next_hop_of(&self, addr: IpAddr, family: Family) -> bool {
        Family::of(addr) == family
            || (family == Family::V4 && self.foreign_next_hops.contains(family))
    }

    /// Returns what the rules say about a prefix that we originate.
    pub(crate) fn judge_own(&self, cidr: &Cidr, scope: &Scope) -> Verdict {
        let family = cidr.family();
        let is_told = self.carries(family)
            && self.is_next_hop_of(self.local_addr, family)
            && !scope.not_exported.cover(cidr);
        if !is_told {
            return Verdict::Reject;
        }
        // Calico attaches communities behind the filters, so rules see a bare path.
        let attributes = &own_attributes(family, scope);
        let session = self.session_kind();
        let route = Route { cidr, attributes, is_learned: false, session, way: None };
        filter::judge(self.rules(family), &route)
    }

    /// Returns what the rules say about a learned path.
    pub(crate) fn judge_learned(
        &self,
        cidr: &Cidr,
        candidate: &Candidate,
        scope: &Scope,
    ) -> Verdict {
        let (family, attributes) = (cidr.family(), &*candidate.path.attributes);
        let is_told = self.carries(family)
            && self.may_pass(&candidate.source, attributes)
            && self.is_next_hop_of(self.next_hop_of(candidate), family)
            && scope.passes_learned(cidr, attributes);
        if !is_told {
            return Verdict::Reject;
        }
        let (session, way) = (self.session_kind(), Some((candidate.path.next_hop, &scope.ways)));
        let route = Route { cidr, attributes, is_learned: true, session, way };
        filter::judge(self.rules(family), &route)
    }

    /// May the peer know of the path, whatever its prefix is?
    fn may_pass(&self, source: &Source, attributes: &Attributes) -> bool {
        // RFC 4271 §9.2: internal routes stay where they came from, but RFC 4456 §6 reflects
        // those of clients to all and those of others to clients.
        let is_to_client = self.reflection.is_some_and(|each| each.is_client);
        let is_reflected = source.is_internal && self.is_internal;
        if is_reflected && !source.is_client && !is_to_client {
            return false;
        }
        let has = |community: u32| attributes.communities.contains(&community);
        let is_kept_inside = has(Attributes::NO_EXPORT) || has(Attributes::NO_EXPORT_SUBCONFED);
        // RFC 9234 §5: what goes only to customers goes neither up nor sideways.
        let is_up =
            matches!(self.role, Some(Role::Customer | Role::Peer | Role::RouteServerClient));
        let is_leak = is_up && attributes.only_to_customer.is_some();
        !has(Attributes::NO_ADVERTISE) && (self.is_internal || !is_kept_inside) && !is_leak
    }

    fn next_hop_of(&self, candidate: &Candidate) -> IpAddr {
        let is_ours = match self.next_hop {
            NextHopMode::Auto => !self.is_internal,
            NextHopMode::SelfAddr => true,
            NextHopMode::Keep => false,
        };
        // What is on one of our links only we can reach.
        let is_ours = is_ours || zone::is_link_local(candidate.path.next_hop);
        if is_ours { self.local_addr } else { candidate.path.next_hop }
    }

    /// Returns the words for what we originate, marked as `path` is.
    pub(crate) fn own_words(
        &self,
        marks: &Attributes,
        family: Family,
        verdict: Verdict,
        scope: &Scope,
    ) -> (IpAddr, Attributes) {
        let mut attributes = own_attributes(family, scope);
        filter::apply(self.rules(family), verdict, &mut attributes);
        attributes.communities.extend_from_slice(&marks.communities);
        attributes.large_communities.extend_from_slice(&marks.large_communities);
        (self.local_addr, self.finished(attributes))
    }

    /// Returns the words for a learned path, which gets `marks` besides its own.
    pub(crate) fn learned_words(
        &self,
        candidate: &Candidate,
        family: Family,
        verdict: Verdict,
        marks: &BTreeSet<Community>,
    ) -> (IpAddr, Attributes) {
        let (path, source) = (&candidate.path, &candidate.source);
        let mut attributes = Attributes::clone(&path.attributes);
        for attribute in &mut attributes.unknown {
            attribute.is_partial = true;
        }
        attributes.local_pref = Some(local_pref(&attributes));
        filter::apply(self.rules(family), verdict, &mut attributes);
        for community in marks {
            filter::add_community(&mut attributes, *community);
        }
        if source.is_internal && self.is_internal {
            // RFC 4456 §8.
            attributes.originator_id.get_or_insert(source.identifier);
            let cluster = self.reflection.map(|each| each.cluster_id).or(source.cluster_id);
            attributes.cluster_list.splice(0..0, cluster);
        }
        if !self.is_internal {
            // RFC 4271 §5.1.4: a MED goes no further than the AS that it was meant for.
            attributes.med = None;
        }
        (self.next_hop_of(candidate), self.finished(attributes))
    }

    /// Does what the kind of session asks for.
    fn finished(&self, mut attributes: Attributes) -> Attributes {
        if matches!(self.role, Some(Role::Provider | Role::Peer | Role::RouteServer)) {
            // RFC 9234 §5: from here on it only goes down.
            attributes.only_to_customer.get_or_insert(self.local_asn);
        }
        if !self.is_internal {
            // RFC 4271 §5.1.5; RFC 4456 §8: these mean something only inside our AS.
            attributes.local_pref = None;
            attributes.originator_id = None;
            attributes.cluster_list = Vec::new();
            attributes.as_path.prepend(self.local_asn);
        }
        attributes
    }
}

/// Do rules of any family ask for interfaces?
pub(crate) fn asks_for_interfaces(filters: &Filters) -> bool {
    let rules = Family::ALL.into_iter().filter_map(|family| filters.of(family)).flatten();
    rules.into_iter().any(|rule| rule.interface.is_some())
}

fn own_attributes(family: Family, scope: &Scope) -> Attributes {
    let local_pref = Some(scope.normal_local_pref(family));
    Attributes { local_pref, ..Attributes::default() }
}

fn local_pref(attributes: &Attributes) -> u32 {
    attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
}
