//! `AS_PATH`: the systems that a route came through (RFC 4271 §5.1.2, RFC 6793).

use std::fmt;

use model::net::Asn;

use super::AsnWidth;
use super::reader::Reader;

/// A path of AS numbers, the nearest first.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AsPath(pub Vec<Segment>);

/// A part of a path.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Segment {
    /// Whether the order means something.
    pub kind: SegmentKind,
    /// The numbers; never empty, at most 255.
    pub asns: Vec<Asn>,
}

/// Whether a segment's order means something.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SegmentKind {
    /// `AS_SET`: the systems of an aggregate, in no order.
    Set,
    /// `AS_SEQUENCE`: the systems in the order of the way.
    Sequence,
}

impl AsPath {
    /// Returns the length that best path selection counts: a set is one (RFC 4271 §9.1.2.2).
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.iter().map(Segment::length).fold(0, usize::saturating_add)
    }

    /// Does the route come through `asn`?
    #[must_use]
    pub fn contains(&self, asn: Asn) -> bool {
        self.0.iter().any(|segment| segment.asns.contains(&asn))
    }

    /// Returns the AS that the route was received from, if the path says.
    #[must_use]
    pub fn neighbour(&self) -> Option<Asn> {
        let first = self.0.first().filter(|segment| segment.kind == SegmentKind::Sequence)?;
        first.asns.first().copied()
    }

    /// Puts `asn` in front of the path.
    pub fn prepend(&mut self, asn: Asn) {
        match self.0.first_mut() {
            Some(first) if first.kind == SegmentKind::Sequence && first.asns.len() < 255 => {
                first.asns.insert(0, asn);
            }
            _ => self.0.insert(0, Segment { kind: SegmentKind::Sequence, asns: vec![asn] }),
        }
    }

    /// Does any number need four octets?
    pub(super) fn is_wide(&self) -> bool {
        self.0.iter().flat_map(|segment| &segment.asns).any(|asn| u16::try_from(asn.0).is_err())
    }

    /// Reads the attribute's value; `None` if it is malformed (RFC 7606 §7.2), which the
    /// number zero makes it too (RFC 7607 §2), and so do the segments of a confederation,
    /// since we are in none (RFC 5065 §5).
    pub(super) fn decode(value: &[u8], width: AsnWidth) -> Option<Self> {
        Self::decode_segments(value, width, |_| None)
    }

    /// Reads an `AS4_PATH`, leaving out segments of a confederation (RFC 6793 §6).
    pub(super) fn decode_as4(value: &[u8]) -> Option<Self> {
        let is_confederation = |kind: u8| matches!(kind, 3 | 4);
        Self::decode_segments(value, AsnWidth::Four, |kind| is_confederation(kind).then_some(()))
    }

    /// Reads segments; those of a kind that we do not know are left out if `skip` says so.
    fn decode_segments(
        value: &[u8],
        width: AsnWidth,
        skip: impl Fn(u8) -> Option<()>,
    ) -> Option<Self> {
        let mut reader = Reader::new(value);
        // Nearly every path has one segment, and many are kept for long.
        let mut segments = Vec::with_capacity(usize::from(!value.is_empty()));
        while !reader.is_empty() {
            let code = reader.u8()?;
            let count = reader.u8().filter(|count| *count != 0)?;
            let bytes = reader.take(usize::from(count).checked_mul(width.bytes())?)?;
            let kind = match code {
                1 => SegmentKind::Set,
                2 => SegmentKind::Sequence,
                other => {
                    skip(other)?;
                    continue;
                }
            };
            let asns = width.decode_list(bytes);
            if asns.contains(&Asn(0)) {
                return None;
            }
            segments.push(Segment { kind, asns });
        }
        Some(Self(segments))
    }

    /// Appends the attribute's value; numbers that do not fit become [`Asn::TRANS`].
    pub(super) fn encode(&self, width: AsnWidth, out: &mut Vec<u8>) {
        for segment in &self.0 {
            out.push(match segment.kind {
                SegmentKind::Set => 1,
                SegmentKind::Sequence => 2,
            });
            out.push(u8::try_from(segment.asns.len()).unwrap_or(u8::MAX));
            for asn in segment.asns.iter().take(255) {
                width.encode(*asn, out);
            }
        }
    }

    /// Puts the true numbers of an `AS4_PATH` into a path of short ones (RFC 6793 §4.2.3).
    #[must_use]
    pub(super) fn merged_with(self, wide: &Self) -> Self {
        // A longer AS4_PATH was made by someone who did not keep the two in step: ignored.
        let Some(mut leading) = self.length().checked_sub(wide.length()) else { return self };
        let mut segments = Vec::new();
        for mut segment in self.0 {
            if leading == 0 {
                break;
            }
            if segment.kind == SegmentKind::Sequence {
                segment.asns.truncate(leading);
            }
            leading = leading.saturating_sub(segment.length());
            segments.push(segment);
        }
        segments.extend(wide.0.iter().cloned());
        Self(segments)
    }
}

impl Segment {
    fn length(&self) -> usize {
        match self.kind {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => self.asns.len(),
        }
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            let asns: Vec<String> = segment.asns.iter().map(ToString::to_string).collect();
            let gap = if index == 0 { "" } else { " " };
            match segment.kind {
                SegmentKind::Sequence => write!(f, "{gap}{}", asns.join(" "))?,
                SegmentKind::Set => write!(f, "{gap}{{{}}}", asns.join(","))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(asns: &[u32]) -> AsPath {
        let asns = asns.iter().copied().map(Asn).collect();
        AsPath(vec![Segment { kind: SegmentKind::Sequence, asns }])
    }

    #[test]
    fn short_and_true_numbers_merge_from_the_far_end() {
        let short = sequence(&[100, 23456, 23456]);
        assert_eq!(short.merged_with(&sequence(&[70_000, 80_000])).to_string(), "100 70000 80000");
    }

    #[test]
    fn a_longer_as4_path_is_ignored() {
        let short = sequence(&[100]);
        assert_eq!(short.clone().merged_with(&sequence(&[1, 2])), short);
    }

    #[test]
    fn a_full_segment_is_not_prepended_to() {
        let mut full = sequence(&[1; 255]);
        full.prepend(Asn(2));
        assert_eq!(full.0.len(), 2);
        assert_eq!(full.length(), 256);
        assert_eq!(full.neighbour(), Some(Asn(2)));
    }
}
