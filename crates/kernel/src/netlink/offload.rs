//! What a link's device does itself with packets that leave by it (`SIOCETHTOOL`, netdevice(7)).

use std::os::fd::RawFd;

use model::desired::Checksums;
use model::net::IfName;
use nix::errno::Errno;
use nix::libc;

use super::{Error, Netlink, Refusal};

/// The request about devices' features.
const SIOCETHTOOL: libc::c_int = 0x8946;
/// Asks whether the device fills in checksums of packets that leave (`ETHTOOL_GTXCSUM`).
const GET_TX_CHECKSUMS: u32 = 0x16;
/// Says whether it should (`ETHTOOL_STXCSUM`); what builds on it goes with it.
const SET_TX_CHECKSUMS: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq`, as it is for this request.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: *mut Value,
    /// What others have in the union.
    rest: [u8; 16],
}

impl Netlink {
    /// Returns who fills in the checksums of packets that leave by a device.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such device, or it does not tell.
    pub async fn checksums(&self, name: &IfName) -> Result<Checksums, Error> {
        let asked = self.ethtool(name, GET_TX_CHECKSUMS, 0).await;
        let is_on = asked.map_err(|errno| refused("look at", name, errno))? != 0;
        Ok(if is_on { Checksums::Offloaded } else { Checksums::Filled })
    }

    /// Says who is to fill them in. Packets on their way are not lost by it.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such device, or it cannot.
    pub async fn set_checksums(&self, name: &IfName, checksums: Checksums) -> Result<(), Error> {
        let data = u32::from(checksums == Checksums::Offloaded);
        let asked = self.ethtool(name, SET_TX_CHECKSUMS, data).await;
        asked.map(drop).map_err(|errno| refused("change", name, errno))
    }

    async fn ethtool(&self, name: &IfName, command: u32, data: u32) -> Result<u32, Errno> {
        self.transport.control(|socket| ethtool(socket, name, Value { command, data })).await
    }
}

fn refused(action: &'static str, name: &IfName, errno: Errno) -> Error {
    let object = format!("tx-checksumming of {name}");
    Error::Refused(Refusal { action, object, errno, detail: None })
}

#[expect(unsafe_code, reason = "ioctl has no safe form")]
fn ethtool(socket: RawFd, name: &IfName, mut value: Value) -> Result<u32, Errno> {
    nix::ioctl_readwrite_bad!(siocethtool, SIOCETHTOOL, Request);
    let mut bytes = [0; libc::IFNAMSIZ];
    // A name has fifteen bytes at most: a zero follows.
    for (to, from) in bytes.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    let mut request = Request { name: bytes, value: std::ptr::from_mut(&mut value), rest: [0; 16] };
    // SAFETY: the descriptor stays open, as its owner is locked, and `request` and what it points to live for the length of the
    // call. Of both commands the kernel reads the eight bytes of `value` and writes no more.
    unsafe { siocethtool(socket, std::ptr::from_mut(&mut request)) }?;
    Ok(value.data)
}
