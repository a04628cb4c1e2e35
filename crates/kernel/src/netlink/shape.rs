//! How fast packets of a link may go: token buckets (tc-tbf(8)).
//!
//! What a link sends waits in its own queue. What it receives is first sent through a link of
//! kind `ifb`, and waits in the queue of that.

use std::collections::BTreeMap;

use model::net::{IfIndex, IfName};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Nla as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::LinkIfb;

use super::{Error, Netlink};

/// The handle of our queues, by which they are known for ours.
const OURS: TcHandle = TcHandle { major: 0xca11, minor: 0 };
/// The handle of each link's ingress queue, and the parent of filters there.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0 };
/// How long a packet may wait in a full queue, in milliseconds, as containernetworking's
/// `bandwidth` has it.
const LATENCY_MS: u64 = 25;
/// The least that a bucket must hold, in bytes: one packet of a large MTU, or none would pass.
const LEAST_BURST: u64 = 10_000;
/// `TCA_TBF_PARMS`, `TCA_TBF_RATE64` and `TCA_TBF_BURST`.
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// `TCA_U32_SEL` and `TCA_U32_ACT`.
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
/// `TCA_ACT_KIND`, `TCA_ACT_OPTIONS` and `TCA_MIRRED_PARMS`.
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
/// `TC_ACT_STOLEN` and `TCA_EGRESS_REDIR`: the packet goes there instead of here.
const STOLEN: u32 = 4;
const EGRESS_REDIRECT: u32 = 1;
/// `TC_U32_TERMINAL`: a packet that matches is not looked at again.
const TERMINAL: u8 = 1;
/// `TC_LINKLAYER_ETHERNET`: the kernel counts bytes as they are, without a table of ours.
const ETHERNET: u8 = 1;
/// The priority of the filter, and all protocols (`ETH_P_ALL`).
const FILTER_INFO: u32 = (1 << 16) | 0x0003_u16.to_be() as u32;

/// How fast packets may go.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RateLimit {
    /// Bytes per second; not zero.
    pub rate: u64,
    /// How many bytes may go at once; what is less than a packet counts as one.
    pub burst: u64,
}

impl RateLimit {
    /// Makes a limit from bits per second and bits; no burst is a tenth of a second's worth.
    #[must_use]
    pub fn of_bits(rate: u64, burst: u64) -> Self {
        let rate = (rate / 8).max(1);
        let burst = if burst == 0 { rate / 10 } else { burst / 8 };
        Self { rate, burst: burst.clamp(LEAST_BURST, u64::from(u32::MAX / 2)) }
    }
}

/// Returns the name of the link through which a link receives that is limited.
#[must_use]
pub fn ifb_name(link: &IfName) -> Option<IfName> {
    // The end of a workload's name tells it from others, and the whole has at most 15 characters.
    let name = link.as_str();
    let end = name.get(name.len().saturating_sub(12)..)?;
    format!("bw-{end}").parse().ok()
}

impl Netlink {
    /// Limits what a link sends; what limited it before does so no more.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses, as one without `sch_tbf` does.
    pub async fn limit_sending(&self, link: IfIndex, limit: RateLimit) -> Result<(), Error> {
        let mut message = queue(link, OURS, TcHandle::ROOT);
        message.attributes.push(TcAttribute::Kind("tbf".to_owned()));
        message.attributes.push(TcAttribute::Options(token_bucket(limit)));
        let request =
            (RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE);
        self.request(request, "limit", || format!("what link number {} sends", link.0))
            .await
            .map(drop)
    }

    /// Ends our limit on what a link sends; returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses for another reason than absence.
    pub async fn unlimit_sending(&self, link: IfIndex) -> Result<bool, Error> {
        if !self.limits().await?.contains_key(&link) {
            return Ok(false);
        }
        let message = queue(link, OURS, TcHandle::ROOT);
        let request = (RouteNetlinkMessage::DelQueueDiscipline(message), 0);
        let object = || format!("the limit of link number {}", link.0);
        match self.request(request, "delete", object).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Limits what a link receives, by a link of kind `ifb` that is made for it.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses, as one without `ifb`,
    /// `cls_u32` or `act_mirred` does.
    pub async fn limit_receiving(
        &self,
        link: IfIndex,
        ifb: &IfName,
        limit: RateLimit,
    ) -> Result<(), Error> {
        let message = LinkIfb::new(ifb.as_str()).up().build();
        let request = (RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
        match self.request(request, "add", || format!("link {ifb}")).await {
            Err(error) if !error.is_exists() => return Err(error),
            _ => {}
        }
        let through = self.require_link(ifb).await?;
        self.set_link_up(through.index).await?;
        self.limit_sending(through.index, limit).await?;
        self.redirect(link, through.index).await
    }

    /// Ends what [`Netlink::limit_receiving`] did; returns whether there was something.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses for another reason than absence.
    pub async fn unlimit_receiving(&self, link: IfIndex, ifb: &IfName) -> Result<bool, Error> {
        let message = queue(link, INGRESS, TcHandle::INGRESS);
        let request = (RouteNetlinkMessage::DelQueueDiscipline(message), 0);
        if self.link(ifb).await?.is_none() {
            return Ok(false);
        }
        // First the way there: a redirection to a link that is gone drops everything.
        match self.request(request, "delete", || format!("the filters of link {}", link.0)).await {
            Err(error) if !error.is_missing() && !error.is_invalid() => return Err(error),
            _ => {}
        }
        self.delete_link(ifb).await
    }

    /// Returns the limits of ours on what links send.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn limits(&self) -> Result<BTreeMap<IfIndex, RateLimit>, Error> {
        let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let found = self.dump("queues", message).await?;
        Ok(found.iter().filter_map(of_message).collect())
    }

    /// Sends all that a link receives through another one.
    async fn redirect(&self, link: IfIndex, to: IfIndex) -> Result<(), Error> {
        let object = || format!("the redirection of link number {} to {}", link.0, to.0);
        let mut ingress = queue(link, INGRESS, TcHandle::INGRESS);
        ingress.attributes.push(TcAttribute::Kind("ingress".to_owned()));
        let request = (RouteNetlinkMessage::NewQueueDiscipline(ingress), NLM_F_CREATE | NLM_F_EXCL);
        match self.request(request, "add", object).await {
            // It is there, and so is our filter: it is the only one of ours.
            Err(error) if error.is_exists() => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let mut filter = queue(link, TcHandle::UNSPEC, INGRESS);
        filter.header.info = FILTER_INFO;
        filter.attributes.push(TcAttribute::Kind("u32".to_owned()));
        filter.attributes.push(TcAttribute::Options(redirection(to)));
        let request = (RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE | NLM_F_EXCL);
        self.request(request, "add", object).await.map(drop)
    }
}

fn queue(link: IfIndex, handle: TcHandle, parent: TcHandle) -> TcMessage {
    // The kernel's numbers of links are never negative.
    let mut message = TcMessage::with_index(i32::try_from(link.0).unwrap_or(i32::MAX));
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

/// Writes `struct tc_tbf_qopt` and what goes with it (`linux/pkt_sched.h`).
fn token_bucket(limit: RateLimit) -> Vec<TcOption> {
    let burst = u32::try_from(limit.burst).unwrap_or(u32::MAX);
    let rate = u32::try_from(limit.rate).unwrap_or(u32::MAX);
    let waiting = (limit.rate / 1000).saturating_mul(LATENCY_MS).saturating_add(limit.burst);
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
    let mut parms = vec![0, ETHERNET];
    parms.extend([0; 6]);
    parms.extend(rate.to_ne_bytes());
    parms.extend([0; 12]);
    parms.extend(waiting.to_ne_bytes());
    // The bucket in units of time, which the burst in bytes below replaces, and the MTU likewise.
    parms.extend([0; 8]);
    vec![
        option(TBF_PARMS, parms),
        option(TBF_RATE64, limit.rate.to_ne_bytes().to_vec()),
        option(TBF_BURST, burst.to_ne_bytes().to_vec()),
    ]
}

/// Writes a filter that matches everything and sends it to another link.
fn redirection(to: IfIndex) -> Vec<TcOption> {
    // `struct tc_u32_sel` with one key of `struct tc_u32_key`, which compares nothing.
    let mut selector = vec![0; 32];
    if let [flags, _, keys, ..] = selector.as_mut_slice() {
        (*flags, *keys) = (TERMINAL, 1);
    }
    // `struct tc_mirred`: index, capabilities, action, two counters; what to do, and where to.
    let words = [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to.0];
    let mirred = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    let options = attribute(MIRRED_PARMS, mirred);
    let mut action = attribute(ACT_KIND, b"mirred\0".to_vec());
    action.extend(attribute(ACT_OPTIONS, options));
    vec![option(U32_SEL, selector), option(U32_ACT, attribute(1, action))]
}

fn option(kind: u16, value: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value))
}

/// Writes one attribute: its length, its kind, and its value, up to netlink's alignment.
fn attribute(kind: u16, value: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Finds the value of an attribute among others.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let [len_low, len_high, kind_low, kind_high, ..] = *attributes else { return None };
        let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
        if u16::from_ne_bytes([kind_low, kind_high]) == wanted {
            return attributes.get(4..len);
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..)?;
    }
}

fn of_message(message: &RouteNetlinkMessage) -> Option<(IfIndex, RateLimit)> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
    if message.header.handle != OURS {
        return None;
    }
    let link = IfIndex(u32::try_from(message.header.index).ok()?);
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.first(),
        _ => None,
    })?;
    // The options of a kind that the library does not know are one attribute, unread.
    let TcOption::Other(options) = options else { return None };
    let mut bytes = vec![0; options.value_len()];
    options.emit_value(&mut bytes);
    let value = |kind| find(&bytes, kind);
    let parms = value(TBF_PARMS)?;
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(parms.get(at..)?.get(..4)?.try_into().ok()?))
    };
    let rate = match value(TBF_RATE64) {
        Some(value) => u64::from_ne_bytes(value.try_into().ok()?),
        None => word(8)?.into(),
    };
    // The kernel tells the bucket in ticks of 64 ns.
    let nanos = u64::from(word(28)?).saturating_mul(64);
    let burst = u128::from(nanos).saturating_mul(rate.into()).checked_div(1_000_000_000)?;
    Some((link, RateLimit { rate, burst: u64::try_from(burst).unwrap_or(u64::MAX) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_runtimes_write_them() {
        let limit = |rate, burst| {
            let RateLimit { rate, burst } = RateLimit::of_bits(rate, burst);
            (rate, burst)
        };
        assert_eq!(limit(8_000_000, 800_000), (1_000_000, 100_000));
        assert_eq!(limit(8_000_000, 0), (1_000_000, 100_000));
        assert_eq!(limit(8000, 8), (1000, LEAST_BURST));
        assert_eq!(limit(1, 0), (1, LEAST_BURST));
        assert_eq!(limit(u64::MAX, u64::MAX).1, u64::from(u32::MAX / 2));
    }

    #[test]
    fn structures_have_the_kernels_sizes() {
        let len = |options: &[TcOption], place: usize| match &options[place] {
            TcOption::Other(nla) => nla.value_len(),
            _ => 0,
        };
        let bucket = token_bucket(RateLimit { rate: 1000, burst: 20_000 });
        assert_eq!(len(&bucket, 0), 36);
        let both = [attribute(1, vec![7]), attribute(6, vec![9, 9])].concat();
        assert_eq!((find(&both, 6), find(&both, 2)), (Some(&[9, 9][..]), None));
        let name = |name: &str| ifb_name(&name.parse().unwrap()).unwrap().to_string();
        assert_eq!(
            (name("calic440f455693"), name("eth0")),
            ("bw-ic440f455693".into(), "bw-eth0".into())
        );
        assert_eq!(len(&redirection(IfIndex(3)), 0), 32);
    }
}
