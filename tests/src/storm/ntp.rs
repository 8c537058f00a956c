//! Time, as SNTP clients ask for it (RFC 4330).

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{net::UdpSocket, time::timeout};

use super::{network::TIME, tally::Lookup};

/// The port it is asked at.
pub(super) const PORT: u16 = 123;

/// How long a client waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// A message without extensions.
const LENGTH: usize = 48;
/// Version 4, mode 3: a client.
const CLIENT: u8 = 4 << 3 | 3;
/// Version 4, mode 4: a server.
const SERVER: u8 = 4 << 3 | 4;
/// Where the three timestamps are that a client goes by: its own as it came back, and those of the server.
const ORIGINATE: usize = 24;
const RECEIVE: usize = 32;
const TRANSMIT: usize = 40;
/// Seconds from 1900 to 1970.
const ERA: u64 = 2_208_988_800;

/// The server's side.
pub(super) fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let request: &[u8; LENGTH] = request.try_into().ok()?;
    if request[0] != CLIENT {
        return None;
    }
    let mut reply = vec![0; LENGTH];
    // A primary server's stratum.
    (reply[0], reply[1]) = (SERVER, 1);
    reply[ORIGINATE..RECEIVE].copy_from_slice(&request[TRANSMIT..]);
    reply[RECEIVE..TRANSMIT].copy_from_slice(&now());
    reply[TRANSMIT..].copy_from_slice(&now());
    Some(reply)
}

/// The client's side: one question, one try.
pub(super) async fn ask() -> Lookup {
    let start = Instant::now();
    let asked = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect((TIME, PORT)).await?;
        let mut request = [0; LENGTH];
        request[0] = CLIENT;
        request[TRANSMIT..].copy_from_slice(&now());
        socket.send(&request).await?;
        let mut reply = [0; LENGTH];
        while socket.recv(&mut reply).await? != LENGTH
            || reply[0] != SERVER
            || reply[ORIGINATE..RECEIVE] != request[TRANSMIT..]
        {}
        std::io::Result::Ok(())
    };
    let answered = timeout(PATIENCE, asked).await.is_ok_and(|asked| asked.is_ok());
    Lookup::single(answered.then(|| start.elapsed()))
}

/// Seconds since 1900, and a binary fraction of one.
fn now() -> [u8; 8] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    // The first era ends in 2036; from then on the seconds begin again at 0 (RFC 4330 section 3).
    ((now.as_secs() + ERA) << 32 | fraction).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_s_message_is_answered_and_with_its_own_time() {
        let mut request = [7; LENGTH];
        assert_eq!(answer(&request), None);
        request[0] = CLIENT;
        assert_eq!(answer(&request[1..]), None);
        let reply = answer(&request).unwrap();
        assert_eq!((reply[0], &reply[ORIGINATE..RECEIVE]), (SERVER, &[7; 8][..]));
    }
}
