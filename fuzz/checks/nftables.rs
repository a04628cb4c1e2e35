//! What holds for any bytes as the kernel's answers about nftables: reading them ends, and ends
//! nothing else.

/// Panics if reading does.
pub fn check(bytes: &[u8]) {
    let understood = kernel::nftables::read_any(bytes);
    // Every thing that is understood takes a message's header at least.
    assert!(understood <= bytes.len() / 16 * 6, "{understood} of {} bytes", bytes.len());
}
