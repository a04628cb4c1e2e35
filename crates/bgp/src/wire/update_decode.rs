//! Path attributes of an UPDATE, read one by one, with what each wrong one does (RFC 7606).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use model::net::{Asn, Family};

use super::attribute as code;
use super::reader::Reader;
use super::{
    AfiSafi, Aggregator, Announcement, AsPath, AsnWidth, Attributes, BgpIdentifier, Context,
    Disposition, Malformed, Nlri, Notification, Origin, Reason, UnknownAttribute, Update,
};

/// The attributes of one message while they are read.
pub(super) struct Walk {
    context: Context,
    attributes: Attributes,
    next_hop: Option<Ipv4Addr>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    reach: Option<(AfiSafi, Option<Announcement>)>,
    unreach: Option<(AfiSafi, Vec<Nlri>)>,
    seen: [bool; 256],
    malformed: Vec<Malformed>,
}

/// What stopped one attribute.
enum Wrong {
    Discard(&'static str),
    Withdraw(&'static str),
    Reset(Notification),
}

impl Walk {
    pub(super) fn new(context: Context) -> Self {
        Self {
            context,
            attributes: Attributes::default(),
            next_hop: None,
            as4_path: None,
            as4_aggregator: None,
            reach: None,
            unreach: None,
            seen: [false; 256],
            malformed: Vec::new(),
        }
    }

    fn note(&mut self, code: u8, disposition: Disposition, what: &'static str) {
        self.malformed.push(Malformed { code, what, disposition });
    }

    fn has_seen(&self, code: u8) -> bool {
        self.seen.get(usize::from(code)).copied().unwrap_or(false)
    }

    /// Reads all attributes, noting what is wrong with each.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Notification> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let Some((flags, code, value)) = split_attribute(&mut reader) else {
                // RFC 7606 §4: the list's own length still tells where the prefixes are.
                self.note(0, Disposition::TreatAsWithdraw, "attribute overruns the list");
                break;
            };
            if self.has_seen(code) {
                if code == code::MP_REACH || code == code::MP_UNREACH {
                    return Err(Notification::new(Reason::MALFORMED_ATTRIBUTES));
                }
                self.note(code, Disposition::Discard, "repeated");
                continue;
            }
            if let Some(seen) = self.seen.get_mut(usize::from(code)) {
                *seen = true;
            }
            self.check_flags(flags, code, value)?;
            match self.read_one(flags, code, value) {
                Ok(()) => {}
                Err(Wrong::Discard(what)) => self.note(code, Disposition::Discard, what),
                Err(Wrong::Withdraw(what)) => self.note(code, Disposition::TreatAsWithdraw, what),
                Err(Wrong::Reset(notification)) => return Err(notification),
            }
        }
        Ok(())
    }

    fn check_flags(&mut self, flags: u8, code: u8, value: &[u8]) -> Result<(), Notification> {
        let found = flags & (code::OPTIONAL | code::TRANSITIVE);
        match code::required_flags(code) {
            Some(required) if required != found => {
                self.note(code, Disposition::TreatAsWithdraw, "wrong flags");
            }
            None if flags & code::OPTIONAL == 0 => {
                let mut attribute = Vec::new();
                code::encode_one(flags & !code::EXTENDED_LENGTH, code, value, &mut attribute);
                return Err(Notification::with_data(Reason::UNKNOWN_WELL_KNOWN, &attribute));
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    fn read_one(&mut self, flags: u8, code: u8, value: &[u8]) -> Result<(), Wrong> {
        let width = self.context.width;
        let length = Wrong::Withdraw("wrong length");
        let attributes = &mut self.attributes;
        match code {
            code::ORIGIN => {
                let wrong = Wrong::Withdraw("wrong length or value");
                attributes.origin = Origin::decode(value).ok_or(wrong)?;
            }
            code::AS_PATH => {
                let wrong = Wrong::Withdraw("malformed segments");
                attributes.as_path = AsPath::decode(value, width).ok_or(wrong)?;
            }
            code::NEXT_HOP => {
                self.next_hop = Some(code::exact_u32(value).ok_or(length)?.into());
            }
            code::MED => attributes.med = Some(code::exact_u32(value).ok_or(length)?),
            code::ATOMIC_AGGREGATE if !value.is_empty() => {
                return Err(Wrong::Discard("wrong length"));
            }
            code::ATOMIC_AGGREGATE => attributes.is_atomic_aggregate = true,
            code::AGGREGATOR => {
                let wrong = Wrong::Discard("malformed");
                attributes.aggregator = Some(Aggregator::decode(value, width).ok_or(wrong)?);
            }
            code::COMMUNITIES => {
                attributes.communities = code::filled_u32_list(value).ok_or(length)?;
            }
            code::EXTENDED_COMMUNITIES => {
                attributes.extended_communities = code::decode_extended(value).ok_or(length)?;
            }
            code::LARGE_COMMUNITIES => {
                attributes.large_communities = code::decode_large(value).ok_or(length)?;
            }
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST => {
                return self.read_internal(code, value);
            }
            code::MP_REACH => {
                self.reach = Some(decode_reach(value, self.context).map_err(Wrong::Reset)?);
            }
            code::MP_UNREACH => {
                self.unreach = Some(decode_unreach(value, self.context).map_err(Wrong::Reset)?);
            }
            code::ONLY_TO_CUSTOMER => {
                attributes.only_to_customer = Some(Asn(code::exact_u32(value).ok_or(length)?));
            }
            code::AS4_PATH | code::AS4_AGGREGATOR => return self.read_as4(code, value),
            _ => self.read_unknown(flags, code, value),
        }
        Ok(())
    }

    /// Reads what only a peer in our own AS may say (RFC 7606 §7.5, §7.9, §7.10).
    fn read_internal(&mut self, code: u8, value: &[u8]) -> Result<(), Wrong> {
        if !self.context.is_internal {
            return Err(Wrong::Discard("from an external peer"));
        }
        let length = Wrong::Withdraw("wrong length");
        if code == code::CLUSTER_LIST {
            self.attributes.cluster_list = code::filled_u32_list(value).ok_or(length)?;
            return Ok(());
        }
        let number = code::exact_u32(value).ok_or(length)?;
        if code == code::LOCAL_PREF {
            self.attributes.local_pref = Some(number);
        } else {
            self.attributes.originator_id = Some(BgpIdentifier(number));
        }
        Ok(())
    }

    /// Reads the true AS numbers that an old peer passes on (RFC 6793 §6).
    fn read_as4(&mut self, code: u8, value: &[u8]) -> Result<(), Wrong> {
        if self.context.width == AsnWidth::Four {
            return Err(Wrong::Discard("from a peer that speaks four octets"));
        }
        let wrong = Wrong::Discard("malformed");
        if code == code::AS4_PATH {
            self.as4_path = Some(AsPath::decode_as4(value).ok_or(wrong)?);
        } else {
            self.as4_aggregator = Some(Aggregator::decode(value, AsnWidth::Four).ok_or(wrong)?);
        }
        Ok(())
    }

    fn read_unknown(&mut self, flags: u8, code: u8, value: &[u8]) {
        // What is unknown and not transitive is quietly ignored (RFC 4271 §5).
        if flags & code::TRANSITIVE != 0 {
            let is_partial = flags & code::PARTIAL != 0;
            let unknown = UnknownAttribute { code, is_partial, value: value.to_vec() };
            self.attributes.unknown.push(unknown);
        }
    }

    /// Returns the message's meaning once all attributes are read.
    pub(super) fn finish(
        mut self,
        mut update: Update,
        v4: Vec<Nlri>,
    ) -> Result<Update, Notification> {
        let is_alone = self.seen.iter().filter(|is_seen| **is_seen).count() == 1;
        let is_only_unreach = is_alone && self.has_seen(code::MP_UNREACH);
        if let Some((family, prefixes)) = self.unreach.take() {
            if prefixes.is_empty()
                && is_only_unreach
                && v4.is_empty()
                && update.withdrawn.is_empty()
            {
                update.end_of_rib = Some(family);
            }
            update.withdrawn.extend(prefixes);
        }
        self.merge_as4();
        let has_reachable = !v4.is_empty() || self.reach.is_some();
        let mp = self.reach.take().and_then(|(_, announcement)| announcement);
        self.require_mandatory(!v4.is_empty(), mp.is_some());
        let is_withdrawn = self
            .malformed
            .iter()
            .any(|malformed| malformed.disposition == Disposition::TreatAsWithdraw);
        if is_withdrawn {
            if !has_reachable && !is_only_unreach {
                // RFC 7606 §5.2: no route to withdraw, so whom the error hit cannot be told.
                return Err(Notification::new(Reason::MALFORMED_ATTRIBUTES));
            }
            update.withdrawn.extend(v4);
            update.withdrawn.extend(mp.into_iter().flat_map(|mp| mp.prefixes));
        } else {
            if let Some(next_hop) = self.next_hop.filter(|_| !v4.is_empty()) {
                update.announced.push(Announcement { next_hop: next_hop.into(), prefixes: v4 });
            }
            update.announced.extend(mp.filter(|mp| !mp.prefixes.is_empty()));
            self.attributes.unknown.sort();
            update.attributes = Arc::new(self.attributes);
        }
        update.malformed = self.malformed;
        Ok(update)
    }

    /// Puts four-octet numbers back where an old peer wrote `AS_TRANS` (RFC 6793 §4.2.3).
    fn merge_as4(&mut self) {
        let is_aggregated_by_old =
            self.attributes.aggregator.is_some_and(|aggregator| aggregator.asn != Asn::TRANS);
        if is_aggregated_by_old && self.as4_aggregator.is_some() {
            return;
        }
        if let Some(aggregator) =
            self.as4_aggregator.filter(|_| self.attributes.aggregator.is_some())
        {
            self.attributes.aggregator = Some(aggregator);
        }
        if let Some(wide) = self.as4_path.take() {
            let short = std::mem::take(&mut self.attributes.as_path);
            self.attributes.as_path = short.merged_with(&wide);
        }
    }

    /// Notes missing well-known attributes (RFC 7606 §3 d).
    fn require_mandatory(&mut self, has_v4: bool, has_mp: bool) {
        if !has_v4 && !has_mp {
            return;
        }
        for code in [code::ORIGIN, code::AS_PATH] {
            if !self.has_seen(code) {
                self.note(code, Disposition::TreatAsWithdraw, "missing");
            }
        }
        if has_v4 && !self.has_seen(code::NEXT_HOP) {
            self.note(code::NEXT_HOP, Disposition::TreatAsWithdraw, "missing");
        }
    }
}

/// Takes flags, type code and value off the list; `None` if they overrun it.
fn split_attribute<'a>(reader: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let (flags, code) = (reader.u8()?, reader.u8()?);
    let value = if flags & code::EXTENDED_LENGTH == 0 {
        reader.counted_u8()?
    } else {
        reader.counted_u16()?
    };
    Some((flags, code, value))
}

/// Reads MP_REACH_NLRI; a family that we do not carry gives no announcement.
fn decode_reach(
    value: &[u8],
    context: Context,
) -> Result<(AfiSafi, Option<Announcement>), Notification> {
    let wrong = || Notification::new(Reason::OPTIONAL_ATTRIBUTE);
    let mut reader = Reader::new(value);
    let family = decode_family(&mut reader)?;
    let next_hop = reader.counted_u8().ok_or_else(wrong)?;
    let _reserved = reader.u8().ok_or_else(wrong)?;
    let Some(unicast) = family.unicast() else { return Ok((family, None)) };
    let next_hop = decode_next_hop(next_hop, context.is_on_link).filter(|next_hop| {
        Family::of(*next_hop) == unicast || context.foreign_next_hops.contains(unicast)
    });
    let next_hop = next_hop.ok_or_else(wrong)?;
    let prefixes = context.notation(unicast).decode_all(reader.rest()).ok_or_else(wrong)?;
    Ok((family, Some(Announcement { next_hop, prefixes })))
}

/// Reads the next hop; of a global and a link-local address the global one (RFC 2545 §3),
/// unless it is left open, or the peer is known by a link-local one itself.
fn decode_next_hop(bytes: &[u8], is_on_link: bool) -> Option<IpAddr> {
    let mut reader = Reader::new(bytes);
    match bytes.len() {
        4 => Some(Ipv4Addr::from(reader.u32()?).into()),
        16 => Some(Ipv6Addr::from(reader.array::<16>()?).into()),
        32 => {
            let global = Ipv6Addr::from(reader.array::<16>()?);
            let link_local = Ipv6Addr::from(reader.array::<16>()?);
            Some(if global.is_unspecified() || is_on_link { link_local } else { global }.into())
        }
        _ => None,
    }
}

fn decode_unreach(value: &[u8], context: Context) -> Result<(AfiSafi, Vec<Nlri>), Notification> {
    let wrong = || Notification::new(Reason::OPTIONAL_ATTRIBUTE);
    let mut reader = Reader::new(value);
    let family = decode_family(&mut reader)?;
    let Some(unicast) = family.unicast() else { return Ok((family, Vec::new())) };
    let prefixes = context.notation(unicast).decode_all(reader.rest());
    Ok((family, prefixes.ok_or_else(wrong)?))
}

fn decode_family(reader: &mut Reader<'_>) -> Result<AfiSafi, Notification> {
    let wrong = || Notification::new(Reason::OPTIONAL_ATTRIBUTE);
    let afi = reader.u16().ok_or_else(wrong)?;
    Ok(AfiSafi { afi, safi: reader.u8().ok_or_else(wrong)? })
}
