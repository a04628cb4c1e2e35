//! What holds for any bytes as messages of BGP, whatever the session agreed on.

use bgp::wire::{
    self, AsnWidth, Context, Disposition, Families, Form, Frame, Kind, Nlri, Notification, Open,
    RouteRefresh, Update,
};
use model::net::Family;

/// Panics if the codec breaks its promises on `bytes`: the first byte chooses what the
/// session agreed on, the rest is what the peer sends.
pub fn check(bytes: &[u8]) {
    let Some((agreed, mut stream)) = bytes.split_first() else { return };
    let session = Session::new(*agreed);
    while let Ok(Some((frame, rest))) = wire::split_frame(stream, session.form.max_len) {
        assert!(rest.len() < stream.len(), "a frame takes nothing");
        session.check(frame);
        stream = rest;
    }
    // Bodies without a header get to the decoders too: a fuzzer need not learn the marker.
    for kind in [Kind::Open, Kind::Update, Kind::Notification, Kind::RouteRefresh] {
        session.check(Frame { kind, body: bytes.get(1..).unwrap_or_default() });
    }
}

/// What both sides have agreed on.
struct Session {
    context: Context,
    form: Form,
}

impl Session {
    fn new(agreed: u8) -> Self {
        let is_set = |bit: u8| agreed & (1 << bit) != 0;
        let width = if is_set(0) { AsnWidth::Two } else { AsnWidth::Four };
        let chosen = |bit: u8| if is_set(bit) { Families::ALL } else { Families::NONE };
        let max_len = if is_set(4) { wire::MAX_EXTENDED_LEN } else { wire::MAX_LEN };
        Self {
            context: Context {
                width,
                is_internal: is_set(1),
                add_path: chosen(2),
                foreign_next_hops: chosen(3),
                is_on_link: is_set(5),
            },
            form: Form { width, max_len, add_path: chosen(2) },
        }
    }

    fn check(&self, frame: Frame<'_>) {
        match frame.kind {
            Kind::Open => open(frame.body),
            Kind::Update => self.update(frame.body),
            Kind::Notification => notification(frame.body),
            Kind::RouteRefresh => refresh(frame.body),
            Kind::Keepalive => assert!(frame.body.is_empty(), "a KEEPALIVE with a body"),
        }
    }

    /// What an UPDATE says is said again by what we write of it.
    fn update(&self, body: &[u8]) {
        let Ok(update) = Update::decode(body, self.context) else { return };
        let is_withdrawn = |disposition| disposition == Disposition::TreatAsWithdraw;
        if update.malformed.iter().any(|each| is_withdrawn(each.disposition)) {
            assert!(
                update.announced.is_empty(),
                "routes of a message that was treated as withdrawn"
            );
        }
        for announcement in &update.announced {
            let (mut out, next_hop) = (Vec::new(), announcement.next_hop);
            let prefixes = &announcement.prefixes;
            let attributes = &update.attributes;
            if wire::encode_announcement(attributes, next_hop, prefixes, self.form, &mut out)
                .is_err()
            {
                continue;
            }
            let mut again = Vec::new();
            for update in self.updates(&out) {
                assert_eq!(update.malformed, [], "we write what we would not take");
                // Sets are not put back exactly from short numbers (RFC 6793 §4.2.3).
                if self.form.width == AsnWidth::Four {
                    assert_eq!(update.attributes, *attributes);
                }
                assert!(update.announced.iter().all(|each| each.next_hop == next_hop));
                again.extend(update.announced.into_iter().flat_map(|each| each.prefixes));
            }
            assert_eq!(again, *prefixes);
        }
        for family in Family::ALL {
            let is_of_family = |nlri: &&Nlri| nlri.prefix.family() == family;
            let withdrawn: Vec<Nlri> =
                update.withdrawn.iter().filter(is_of_family).copied().collect();
            let mut out = Vec::new();
            wire::encode_withdrawal(&withdrawn, self.form, &mut out);
            let again: Vec<Nlri> =
                self.updates(&out).into_iter().flat_map(|update| update.withdrawn).collect();
            assert_eq!(again, withdrawn);
        }
    }
}

impl Session {
    /// Returns the updates in `stream`, which we wrote ourselves.
    fn updates(&self, mut stream: &[u8]) -> Vec<Update> {
        // What we write is for a peer that agreed on the same, and takes all that we take.
        let context = Context { foreign_next_hops: Families::ALL, ..self.context };
        let mut updates = Vec::new();
        while let Some((frame, rest)) =
            wire::split_frame(stream, self.form.max_len).expect("we write whole messages")
        {
            updates.push(Update::decode(frame.body, context).expect("we write good messages"));
            stream = rest;
        }
        assert!(stream.is_empty(), "bytes behind the last message");
        updates
    }
}

/// An OPEN that is good is written and read as itself.
fn open(body: &[u8]) {
    let Ok(open) = Open::decode(body) else { return };
    let message = open.encode();
    // What is repeated in many parameters may not fit into one message of ours.
    if message.len() > wire::MAX_LEN {
        return;
    }
    let (frame, _) = wire::split_frame(&message, wire::MAX_LEN)
        .expect("we write good headers")
        .expect("we write whole messages");
    assert_eq!(Open::decode(frame.body), Ok(open));
}

/// Anything is a NOTIFICATION; its words have no control characters.
fn notification(body: &[u8]) {
    let notification = Notification::decode(body);
    let words = notification.to_string();
    assert!(!words.chars().any(char::is_control), "{words:?}");
    if body.len() >= 2 && body.len() <= wire::MAX_LEN - wire::HEADER_LEN {
        assert_eq!(notification.encode().get(wire::HEADER_LEN..), Some(body));
    }
}

fn refresh(body: &[u8]) {
    let Ok(refresh) = RouteRefresh::decode(body) else { return };
    let again = refresh.encode();
    assert_eq!(
        RouteRefresh::decode(again.get(wire::HEADER_LEN..).unwrap_or_default()),
        Ok(refresh)
    );
}
