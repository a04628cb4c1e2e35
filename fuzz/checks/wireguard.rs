//! What holds for any bytes as the kernel's description of a WireGuard device: reading them ends,
//! and ends nothing else.

/// Panics if reading does.
pub fn check(bytes: &[u8]) {
    let peers = kernel::wireguard::read_any(bytes);
    // Every peer takes at least its key, in an attribute.
    assert!(peers <= bytes.len() / 36, "{peers} peers in {} bytes", bytes.len());
}
