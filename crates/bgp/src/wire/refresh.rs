//! ROUTE-REFRESH (RFC 2918) and its borders (RFC 7313).

use super::{AfiSafi, Kind, Notification, Reader, Reason, frame};

/// A request for all routes of a family, or a border around the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouteRefresh {
    /// Whose routes.
    pub family: AfiSafi,
    /// Which of the three messages this is.
    pub kind: RefreshKind,
}

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefreshKind {
    /// Send everything again.
    Request,
    /// Everything follows (`BoRR`).
    Begin,
    /// That was everything (`EoRR`).
    End,
    /// A number that no standard names; ignored (RFC 7313 §5).
    Unknown(u8),
}

impl RouteRefresh {
    /// Reads the body of a ROUTE-REFRESH.
    ///
    /// # Errors
    ///
    /// NOTIFICATION 7/1 if a border is not exactly four bytes (RFC 7313 §5).
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let wrong = || Notification::with_data(Reason::BAD_REFRESH_LENGTH, &frame_of(body));
        let mut reader = Reader::new(body);
        let afi = reader.u16().ok_or_else(wrong)?;
        let kind = match reader.u8().ok_or_else(wrong)? {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            other => RefreshKind::Unknown(other),
        };
        let safi = reader.u8().ok_or_else(wrong)?;
        // A request may carry outbound filters (RFC 5291), which we never offer; borders may not.
        if !reader.is_empty() && matches!(kind, RefreshKind::Begin | RefreshKind::End) {
            return Err(wrong());
        }
        Ok(Self { family: AfiSafi { afi, safi }, kind })
    }

    /// Returns the whole message.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let [high, low] = self.family.afi.to_be_bytes();
        let kind = match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
            RefreshKind::Unknown(code) => code,
        };
        frame(Kind::RouteRefresh, &[high, low, kind, self.family.safi])
    }
}

/// Returns the message that `body` came in, which is what RFC 7313 §5 wants in the data.
fn frame_of(body: &[u8]) -> Vec<u8> {
    frame(Kind::RouteRefresh, body)
}
