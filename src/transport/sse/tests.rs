//! Streams over real sockets on loopback, from peers that write exactly what they are told.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::dialect::sse::MAX_LINE;
use crate::transport::dial::tests::{head, stream_target};
use crate::transport::dial::{Dialed, dial};
use crate::transport::link::Link;

const PATIENCE: Duration = Duration::from_secs(10);

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const UNBOUNDED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// `bytes` as one chunk.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// Dials a peer that reads the request and then does as `script` says.
async fn stream_of<F>(resume: Option<&Resume>, script: impl FnOnce(TcpStream) -> F) -> Dialed
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = stream_target(port, |_| {});
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        // It goes on by itself; what matters of it is on the wire.
        drop(tokio::spawn(script(stream)));
    };
    let (dialed, ()) = tokio::join!(dial(&target, resume, None), serve);
    dialed.unwrap()
}

/// Everything that comes, and how it ends.
async fn all(link: &mut Link) -> (Vec<Incoming>, Ending) {
    let mut came = Vec::new();
    loop {
        match timeout(PATIENCE, link.recv()).await.expect("nothing more") {
            // How bytes are cut is nobody's business here.
            Ok(Incoming::Bytes) => {}
            Ok(incoming) => came.push(incoming),
            Err(ending) => return (came, ending),
        }
    }
}

/// What comes from a peer that writes this and ends TCP.
async fn written(bytes: impl AsRef<[u8]> + Send + 'static) -> (Vec<Incoming>, Ending) {
    let mut dialed = stream_of(None, |mut stream| async move {
        // The link may have enough before all is written.
        let _ = stream.write_all(bytes.as_ref()).await;
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    all(&mut dialed.link).await
}

fn message(text: &str) -> Incoming {
    Incoming::Message(Message::text(text.to_owned()))
}

#[tokio::test]
async fn events_and_comments_come_in_turn_each_told_as_bytes_first() {
    let mut dialed = stream_of(None, |mut stream| async move {
        let bytes = [CHUNKED.as_bytes(), &chunk(b": beat\ndata: a\n\n")].concat();
        stream.write_all(&bytes).await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    for expected in [Incoming::Bytes, Incoming::Comment, message("a")] {
        let came = timeout(PATIENCE, dialed.link.recv()).await.unwrap();
        assert_eq!(came, Ok(expected));
    }
    let idle = timeout(Duration::from_millis(50), dialed.link.recv()).await;
    assert!(idle.is_err(), "{idle:?}");
    assert!(dialed.link.local_addr().is_some());
    let info = dialed.link.tcp_info().unwrap();
    assert_eq!(info.state, "ESTAB");
}

#[tokio::test]
async fn each_end_of_a_stream_has_its_own_name() {
    let sized = |length: usize| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {length}\r\n\r\n\
             data: a\n\n"
        )
    };
    let chunked = |rest: &str| format!("{CHUNKED}9\r\ndata: a\n\n\r\n{rest}");
    let broken = |error: &str| Ending::Protocol {
        code: 1002,
        error: error.to_owned(),
    };
    for (bytes, expected) in [
        (chunked("0\r\n\r\n"), Ending::StreamEnded),
        (chunked("0\r\nX-Sum: 1\r\n\r\n"), Ending::StreamEnded),
        (sized(9), Ending::StreamEnded),
        (chunked(""), Ending::StreamCut(Cut::Fin)),
        (chunked("9\r\ndata"), Ending::StreamCut(Cut::Fin)),
        (chunked("0\r\n"), Ending::StreamCut(Cut::Fin)),
        (sized(10), Ending::StreamCut(Cut::Fin)),
        (
            format!("{UNBOUNDED}data: a\n\n"),
            Ending::StreamCut(Cut::Endless),
        ),
        (
            chunked("what\r\n"),
            broken("chunked encoding: invalid chunk size line: missing size digit"),
        ),
    ] {
        let (came, ending) = written(bytes.clone()).await;
        assert_eq!(came, [message("a")], "{bytes}");
        assert_eq!(ending, expected, "{bytes}");
    }
}

#[tokio::test]
async fn a_reset_is_told_from_a_fin() {
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let mut dialed = stream_of(None, |mut stream| async move {
        let bytes = [CHUNKED.as_bytes(), &chunk(b"data: a\n\n")].concat();
        stream.write_all(&bytes).await.unwrap();
        told.await.unwrap();
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    assert_eq!(dialed.link.recv().await, Ok(Incoming::Bytes));
    assert_eq!(dialed.link.recv().await, Ok(message("a")));
    tell.send(()).unwrap();
    let (came, ending) = all(&mut dialed.link).await;
    assert_eq!((came, ending), (vec![], Ending::StreamCut(Cut::Reset)));
}

#[tokio::test]
async fn what_is_too_big_ends_the_stream_and_what_came_before_is_told() {
    let of = |body: Vec<u8>| [UNBOUNDED.as_bytes(), b"data: a\n\n", &body].concat();
    let line = of(vec![b'x'; MAX_LINE + 1]);
    let (came, ending) = written(line).await;
    assert_eq!(came, [message("a")]);
    let words = "a line of the event stream has more than 1048576 bytes (max_line)";
    assert_eq!(ending, Ending::TooBig(words.into()));

    let event = of([&b"data:"[..], &[b'x'; 100_000], b"\n"].concat().repeat(42));
    let (came, ending) = written(event).await;
    assert_eq!(came, [message("a")]);
    let words = "an event has more than 4194304 bytes (max_event)";
    assert_eq!(ending, Ending::TooBig(words.into()));

    // And one that just fits is read.
    let fits = of([&b"data:"[..], &vec![b'x'; MAX_LINE - 5], b"\n\n"].concat());
    let (came, ending) = written(fits).await;
    assert_eq!(came.len(), 2);
    assert_eq!(ending, Ending::StreamCut(Cut::Endless));
}

#[tokio::test]
async fn a_stream_says_where_it_is_taken_up_and_keeps_what_it_was_given() {
    let of = |body: &'static str, resume: Option<Resume>| async move {
        let mut dialed = stream_of(resume.as_ref(), |mut stream| async move {
            let bytes = format!("{UNBOUNDED}{body}");
            stream.write_all(bytes.as_bytes()).await.unwrap();
        })
        .await;
        all(&mut dialed.link).await;
        dialed.link.resume().map(|resume| *resume)
    };
    let at = |id: &str, retry: Option<u64>| {
        Some(Resume {
            last_event_id: id.into(),
            retry: retry.map(Duration::from_millis),
        })
    };
    assert_eq!(of(":\n\n", None).await, None);
    assert_eq!(
        of("id: 7\nretry: 2500\n\n", None).await,
        at("7", Some(2500))
    );
    assert_eq!(of("id: 7\n", None).await, None, "not dispatched");
    let given = at("7", Some(2500));
    assert_eq!(of(":\n\n", given.clone()).await, given);
    assert_eq!(of("id: 8\n\n", given.clone()).await, at("8", Some(2500)));
    assert_eq!(of("retry: 1\n", given.clone()).await, at("7", Some(1)));
    assert_eq!(of("id\n\n", given).await, at("", Some(2500)));
    let long: &str = format!("id:{}\n\n", "x".repeat(LONGEST_ID + 1)).leak();
    assert_eq!(of(long, None).await, None);
}

/// A burst of the smallest events is not all in memory at once.
#[tokio::test]
async fn what_is_read_ahead_is_bounded() {
    let mut dialed = stream_of(None, |mut stream| async move {
        let bytes = [UNBOUNDED.as_bytes(), &b":\n".repeat(50_000)].concat();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    let mut comments = 0;
    while let Ok(incoming) = timeout(PATIENCE, dialed.link.recv()).await.unwrap() {
        comments += usize::from(incoming == Incoming::Comment);
        let Link::Sse(sse) = &dialed.link else {
            panic!("no event stream");
        };
        assert!(sse.read.len() <= PIECE / 2);
    }
    assert_eq!(comments, 50_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However the peer cuts its chunks, and the network the bytes.
    #[test]
    fn a_stream_reads_the_same_however_it_arrives(
        chunks in prop::collection::vec(1_usize..40, 1..8),
        writes in prop::collection::vec(1_usize..60, 1..8),
    ) {
        let stream = include_bytes!("../../../fuzz/seeds/sse/all-fields");
        let mut expected = Vec::new();
        let mut parser = Parser::default();
        parser.feed(stream, |item| match item {
            Item::Event { data, .. } => expected.push(message(&data)),
            Item::Comment => expected.push(Incoming::Comment),
            Item::Retry(_) => {}
        }).unwrap();
        let mut wire = CHUNKED.as_bytes().to_vec();
        let mut rest = &stream[..];
        for size in chunks.iter().cycle() {
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            wire.extend(chunk(piece));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (came, ending, id) = runtime.block_on(async {
            let mut dialed = stream_of(None, |mut stream| async move {
                stream.set_nodelay(true).unwrap();
                let mut rest = &wire[..];
                for size in writes.iter().cycle() {
                    let (piece, after) = rest.split_at((*size).min(rest.len()));
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = after;
                    if rest.is_empty() {
                        break;
                    }
                }
            }).await;
            let (came, ending) = all(&mut dialed.link).await;
            (came, ending, dialed.link.resume().unwrap().last_event_id)
        });
        prop_assert_eq!(came, expected);
        prop_assert_eq!(ending, Ending::StreamEnded);
        prop_assert_eq!(&*id, parser.last_event_id());
    }
}

/// All targets share a thread.
#[tokio::test]
async fn others_have_their_turn_within_a_line_of_a_megabyte() {
    let mut dialed = stream_of(None, |mut stream| async move {
        stream.write_all(UNBOUNDED.as_bytes()).await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let Link::Sse(link) = &mut dialed.link else {
        panic!("no event stream");
    };
    link.rest = vec![b'x'; MAX_LINE].into();
    let polled = std::future::poll_fn(|cx| Poll::Ready(link.poll_recv(cx))).await;
    assert!(polled.is_pending());
    let left = link.rest.len();
    assert!(left > MAX_LINE / 2 && left < MAX_LINE, "{left}");
    let read_on = std::future::poll_fn(|cx| {
        let polled = link.poll_recv(cx);
        assert!(polled.is_pending(), "{polled:?}");
        match link.rest.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    timeout(PATIENCE, read_on).await.expect("it is read on");
}
