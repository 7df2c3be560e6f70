//! Passwords: basic authentication against bcrypt hashes, which are slow on purpose.
//!
//! They are verified off the thread that answers, one at a time, and each client address has one
//! turn among the others: whoever tries passwords keeps nobody else waiting. Whoever was let in once
//! is known again without.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::config::Secret;

/// How long a verification waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who may ask.
pub(super) struct Users {
    users: HashMap<Box<str>, User>,
    /// The name whose hash takes the longest: what a name that nobody has is verified against, so
    /// that it takes as long.
    slowest: Box<str>,
    /// Of this process alone.
    key: hmac::Key,
    turns: Turns,
}

struct User {
    hash: Secret<Box<str>>,
    /// A digest of the password that was right.
    known: Mutex<Option<hmac::Tag>>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    LetIn,
    Refused,
    /// Too many others were waiting.
    Busy,
}

impl Users {
    /// `None` if there are none, and nobody is asked.
    pub(super) fn new(users: &[(Box<str>, Secret<Box<str>>)]) -> Result<Option<Arc<Self>>, String> {
        // Each was judged when the configuration was read.
        let cost = |hash: &Secret<Box<str>>| {
            let hash = hash.expose().parse::<bcrypt::HashParts>();
            hash.map_or(0, |hash| hash.get_cost())
        };
        let slowest = users.iter().max_by_key(|(_, hash)| cost(hash));
        let Some((slowest, _)) = slowest else {
            return Ok(None);
        };
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new());
        let key = key.map_err(|_| "this machine has no random numbers to give".to_owned())?;
        let of = |(name, hash): &(Box<str>, Secret<Box<str>>)| {
            let user = User {
                hash: hash.clone(),
                known: Mutex::default(),
            };
            (name.clone(), user)
        };
        Ok(Some(Arc::new(Self {
            users: users.iter().map(of).collect(),
            slowest: slowest.clone(),
            key,
            turns: Turns::default(),
        })))
    }

    /// Judges an `Authorization` header that came from `from`, `None` being a unix socket.
    pub(super) async fn judge(
        self: &Arc<Self>,
        header: Option<&HeaderValue>,
        from: Option<IpAddr>,
    ) -> Verdict {
        let Some((name, password)) = header.and_then(credentials) else {
            return Verdict::Refused;
        };
        if self.is_known(&name, password.expose()) {
            return Verdict::LetIn;
        }
        match tokio::time::timeout(PATIENCE, self.verified(name, password, from)).await {
            Ok(true) => Verdict::LetIn,
            Ok(false) => Verdict::Refused,
            Err(_) => Verdict::Busy,
        }
    }

    /// Whether this is the password that was right before.
    fn is_known(&self, name: &str, password: &[u8]) -> bool {
        self.users.get(name).is_some_and(|user| {
            let known = user.known();
            // In a time that does not depend on either.
            known.is_some_and(|tag| hmac::verify(&self.key, password, tag.as_ref()).is_ok())
        })
    }

    async fn verified(
        self: &Arc<Self>,
        name: Box<str>,
        password: Secret<Vec<u8>>,
        from: Option<IpAddr>,
    ) -> bool {
        let own = self.turns.of(from);
        // Never closed.
        let (Ok(_own), Ok(turn)) = (own.acquire().await, self.turns.one().acquire_owned().await)
        else {
            return false;
        };
        // Somebody from there may have been let in meanwhile.
        if self.is_known(&name, password.expose()) {
            return true;
        }
        let begun = Instant::now();
        let users = self.clone();
        let verified = tokio::task::spawn_blocking(move || {
            // It runs to its end, whoever waits for it.
            let _turn = turn;
            users.verify(&name, password.expose())
        });
        let right = verified.await.unwrap_or(false);
        if !right {
            // Whoever tries passwords gets half of one processor's time at most.
            tokio::time::sleep(begun.elapsed()).await;
        }
        right
    }

    fn verify(&self, name: &str, password: &[u8]) -> bool {
        let user = self.users.get(name);
        let hash = user.or_else(|| self.users.get(&self.slowest));
        let Some(hash) = hash else {
            return false;
        };
        let right = bcrypt::verify(password, hash.hash.expose()).unwrap_or(false);
        match user.filter(|_| right) {
            Some(user) => {
                *user.known() = Some(hmac::sign(&self.key, password));
                true
            }
            None => false,
        }
    }
}

impl User {
    fn known(&self) -> MutexGuard<'_, Option<hmac::Tag>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

/// Name and password of `Basic ..` (RFC 7617).
fn credentials(header: &HeaderValue) -> Option<(Box<str>, Secret<Vec<u8>>)> {
    let (scheme, pair) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut pair = BASE64.decode(pair.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let password = pair.split_off(colon + 1);
    pair.pop();
    let name = String::from_utf8(pair).ok()?;
    Some((name.into(), Secret::new(password)))
}

/// One verification at a time, and of those that wait one for each address.
struct Turns {
    one: Arc<Semaphore>,
    /// Those of addresses that nobody comes from any more are dropped.
    own: Mutex<HashMap<Option<IpAddr>, Weak<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            one: Arc::new(Semaphore::new(1)),
            own: Mutex::default(),
        }
    }
}

impl Turns {
    fn one(&self) -> Arc<Semaphore> {
        self.one.clone()
    }

    fn of(&self, from: Option<IpAddr>) -> Arc<Semaphore> {
        let from = from.map(network);
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = own.get(&from).and_then(Weak::upgrade) {
            return there;
        }
        // No more than there are connections.
        own.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(1));
        own.insert(from, Arc::downgrade(&turns));
        turns
    }
}

/// Who has an IPv6 address mostly has all of its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(prefix.into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$04$eSyaLnhI4SmGfixUgyQd8ew6VhrrqX5cXQPtjm.g9tFI3Tr9bGY8K";

    fn users(list: &[(&str, &str)]) -> Arc<Users> {
        let own = |(name, hash): &(&str, &str)| (Box::from(*name), Secret::new(Box::from(*hash)));
        let list: Vec<_> = list.iter().map(own).collect();
        Users::new(&list).unwrap().unwrap()
    }

    fn header(pair: &str) -> HeaderValue {
        format!("Basic {}", BASE64.encode(pair)).parse().unwrap()
    }

    async fn judged(users: &Arc<Users>, pair: &str) -> Verdict {
        users.judge(Some(&header(pair)), None).await
    }

    #[tokio::test]
    async fn who_has_the_password_is_let_in_and_nobody_else() {
        let other = bcrypt::hash("pa:ss wörd", 4).unwrap();
        let users = users(&[("prometheus", HASH), ("jöe", &other)]);
        assert_eq!(judged(&users, "prometheus:secret").await, Verdict::LetIn);
        assert_eq!(judged(&users, "jöe:pa:ss wörd").await, Verdict::LetIn);
        for wrong in [
            "prometheus:Secret",
            "prometheus:",
            "prometheus",
            "jöe:secret",
            "nobody:secret",
            ":secret",
            "",
        ] {
            assert_eq!(judged(&users, wrong).await, Verdict::Refused, "{wrong}");
        }
        assert_eq!(users.judge(None, None).await, Verdict::Refused);
        for wrong in ["Bearer secret", "Basic", "Basic !!!", "basic"] {
            let value = wrong.parse().unwrap();
            let verdict = users.judge(Some(&value), None).await;
            assert_eq!(verdict, Verdict::Refused, "{wrong}");
        }
        let lower = format!("basic  {}", BASE64.encode("prometheus:secret"));
        let value = lower.parse().unwrap();
        assert_eq!(users.judge(Some(&value), None).await, Verdict::LetIn);
    }

    #[tokio::test]
    async fn who_was_let_in_is_known_and_a_wrong_password_is_not() {
        let users = users(&[("prometheus", HASH)]);
        assert!(!users.is_known("prometheus", b"secret"));
        judged(&users, "prometheus:wrong").await;
        assert!(!users.is_known("prometheus", b"wrong"));
        judged(&users, "prometheus:secret").await;
        assert!(users.is_known("prometheus", b"secret"));
        assert!(!users.is_known("prometheus", b"secrets"));
        // Another's failure changes nothing.
        judged(&users, "prometheus:wrong").await;
        assert!(users.is_known("prometheus", b"secret"));
        // With every turn taken.
        let _turn = users.turns.one().acquire_owned().await.unwrap();
        assert_eq!(judged(&users, "prometheus:secret").await, Verdict::LetIn);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_never_comes_is_waited_for_with_a_limit() {
        let users = users(&[("prometheus", HASH)]);
        let _turn = users.turns.one().acquire_owned().await.unwrap();
        assert_eq!(judged(&users, "prometheus:secret").await, Verdict::Busy);
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_takes_as_long_as_the_slowest() {
        let slow = bcrypt::hash("secret", 9).unwrap();
        let users = users(&[("a", HASH), ("b", &slow), ("c", HASH)]);
        assert_eq!(&*users.slowest, "b");
        // Even with the password of that name.
        assert_eq!(judged(&users, "nobody:secret").await, Verdict::Refused);
        assert_eq!(judged(&users, "b:secret").await, Verdict::LetIn);
    }

    #[tokio::test]
    async fn an_address_waits_for_itself_and_not_for_another() {
        let turns = Turns::default();
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let first = turns.of(address("192.0.2.1"));
        let held = first.acquire().await.unwrap();
        assert_eq!(turns.of(address("192.0.2.1")).available_permits(), 0);
        assert_eq!(turns.of(address("::ffff:192.0.2.1")).available_permits(), 0);
        assert_eq!(turns.of(address("192.0.2.2")).available_permits(), 1);
        let wide = turns.of(address("2001:db8::1"));
        let _held = wide.acquire().await.unwrap();
        assert_eq!(turns.of(address("2001:db8::2")).available_permits(), 0);
        assert_eq!(turns.of(address("2001:db8:0:1::1")).available_permits(), 1);
        assert_eq!(turns.of(None).available_permits(), 1);
        drop(held);
        drop(first);
        let _ = turns.of(None);
        assert!(turns.own.lock().unwrap().len() <= 3, "forgotten");
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let users = users(&[("prometheus", HASH)]);
        assert_eq!(format!("{users:?}"), "Users { .. }");
    }
}
