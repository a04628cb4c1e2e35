//! Attributes of netlink messages: kind, length and value, nested (netlink(7)).

/// `NLA_F_NESTED`: the value is attributes again.
const NESTED: u16 = 0x8000;
/// What is left of a kind without its flags (`NLA_TYPE_MASK`).
const KIND: u16 = 0x3fff;
const HEADER_LEN: usize = 4;

/// Attributes being written.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// How many bytes have been written.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends what is not an attribute, which must be of a length that four divides.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends an attribute.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let len = value.len().saturating_add(HEADER_LEN);
        self.0.extend(u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Appends a number in network order, as `nf_tables` wants all of its own.
    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends text, with the zero at its end.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// Appends an attribute that holds what `fill` writes: less than 64 KiB.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.bytes(kind | NESTED, &[]);
        fill(self);
        self.patch(start);
    }

    /// Writes the length of the attribute, or of the message, that starts at `start`.
    fn patch(&mut self, start: usize) {
        let len = u16::try_from(self.0.len().saturating_sub(start)).unwrap_or(u16::MAX);
        for (to, from) in self.0.iter_mut().skip(start).zip(len.to_ne_bytes()) {
            *to = from;
        }
    }

    /// Overwrites four bytes at `start`.
    pub(crate) fn overwrite(&mut self, start: usize, value: u32) {
        for (to, from) in self.0.iter_mut().skip(start).zip(value.to_ne_bytes()) {
            *to = from;
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Attributes to be read; they end where the bytes make no sense any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Returns the attributes' kinds and values.
    pub(crate) fn all(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let [len_low, len_high, kind_low, kind_high, ..] = *rest else { return None };
            let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
            let value = rest.get(HEADER_LEN..len)?;
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            Some((u16::from_ne_bytes([kind_low, kind_high]) & KIND, value))
        })
    }

    /// Returns the value of the first attribute of that kind.
    pub(crate) fn find(self, wanted: u16) -> Option<&'a [u8]> {
        self.all().find_map(|(kind, value)| (kind == wanted).then_some(value))
    }

    /// Returns the attributes in the first one of that kind; none if it is not there.
    pub(crate) fn within(self, wanted: u16) -> Self {
        Self(self.find(wanted).unwrap_or_default())
    }

    /// Returns a number in network order.
    pub(crate) fn number(self, wanted: u16) -> Option<u32> {
        self.find(wanted)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Returns text, without the zero at its end.
    pub(crate) fn text(self, wanted: u16) -> Option<String> {
        let bytes = self.find(wanted)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.text(1, "calico");
        writer.nest(2, |inner| {
            inner.number(1, 7);
            inner.bytes(2, &[1, 2, 3]);
        });
        writer.number(3, 9);
        let bytes = writer.into_bytes();
        let reader = Reader(&bytes);
        assert_eq!(reader.text(1).as_deref(), Some("calico"));
        assert_eq!(reader.within(2).number(1), Some(7));
        assert_eq!(reader.within(2).find(2), Some(&[1, 2, 3][..]));
        assert_eq!(reader.number(3), Some(9));
        assert_eq!(reader.all().count(), 3);
    }

    #[test]
    fn reading_survives_any_bytes() {
        for bytes in [&[][..], &[1], &[0; 4], &[3, 0, 0, 0], &[255; 64], &[8, 0, 1, 0, 1]] {
            assert!(Reader(bytes).all().count() <= 1, "{bytes:?}");
        }
    }
}
