//! One request and its response over a connection of their own, within their caps.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout_at};

use super::body::{Bounds, BoxError, Reason, RequestBody, ResponseBody};
use super::connect::Stream;
use super::destination::Destination;
use super::failure::Tally;
use super::{Admitted, Answer, Failure, Outbound, Times};
use crate::limits;

/// What a call needs of its sender, which may be gone before it.
pub(super) struct Call {
    pub(super) outbound: Arc<Outbound>,
    pub(super) times: Times,
    pub(super) deadline: Instant,
    pub(super) present: watch::Sender<()>,
    pub(super) tally: Tally,
}

type Wire<B> = Connection<TokioIo<Box<dyn Stream>>, RequestBody<B>>;

impl Call {
    pub(super) async fn exchange<B>(
        mut self,
        admitted: Admitted,
        request: Request<B>,
    ) -> Result<Answer, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        match self.head(&admitted.destination, request).await {
            Ok((response, io)) => {
                self.tally.answered();
                let bounds = Bounds {
                    bytes_max: self.outbound.policy.response_bytes_max,
                    between_bytes: self.times.between_bytes,
                    deadline: self.deadline,
                };
                let held = (admitted, self.present, self.tally);
                Ok(Answer { response: response.map(|body| ResponseBody::new(body, bounds, held)), io })
            }
            Err(failure) => {
                self.tally.failed(&failure);
                failure.tell(Some(&admitted.destination));
                Err(failure)
            }
        }
    }

    /// Connects, sends, and waits for the head. What is left to do then is the second value.
    async fn head<B>(
        &self,
        destination: &Destination,
        request: Request<B>,
    ) -> Result<(Response<Incoming>, super::Io), Failure>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let until = |time| self.deadline.min(Instant::now() + time).into();
        let stream = self.outbound.connect(destination, until(self.times.connect)).await?;
        let reason = Reason::default();
        let bytes_max = self.outbound.policy.request_bytes_max;
        let request =
            prepared(request, destination)?.map(|body| RequestBody::new(body, bytes_max, reason.clone()));
        let (sender, wire) = Builder::new()
            .max_buf_size(limits::OUTBOUND_BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| reason.of(&error))?;
        let (response, wire) =
            timeout_at(until(self.times.first_byte), answered(sender, wire, request, &reason))
                .await
                .map_err(|_| Failure::FirstByteTime)??;
        let bytes_max = self.outbound.policy.response_bytes_max;
        if response.body().size_hint().lower() > bytes_max {
            return Err(Failure::ResponseBytes(bytes_max));
        }
        Ok((response, Box::pin(rest(wire, self.deadline, self.present.subscribe(), reason))))
    }
}

/// The request as it goes over the wire: the address without its server, which the `host` field names.
fn prepared<B: Body>(mut request: Request<B>, destination: &Destination) -> Result<Request<B>, Failure> {
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    let host =
        HeaderValue::try_from(destination.authority()).map_err(|_| super::destination::DestinationError)?;
    request.headers_mut().insert(HOST, host);
    if request.headers().get_all(CONTENT_LENGTH).iter().count() > 1 {
        request.headers_mut().remove(CONTENT_LENGTH);
    }
    Ok(request)
}

/// Moves the connection until the head of the response is there. Nothing is left of one that has ended with it.
async fn answered<B>(
    mut sender: SendRequest<RequestBody<B>>,
    mut wire: Wire<B>,
    request: Request<RequestBody<B>>,
    reason: &Reason,
) -> Result<(Response<Incoming>, Option<Wire<B>>), Failure>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let mut response = pin!(sender.send_request(request));
    let ended = tokio::select! {
        biased;
        answered = &mut response => return Ok((answered.map_err(|error| reason.of(&error))?, Some(wire))),
        ended = &mut wire => ended,
    };
    // A response can come with the end of its connection. Without one, how that ended says more.
    let response = response.await.map_err(|error| reason.of(ended.as_ref().err().unwrap_or(&error)))?;
    Ok((response, None))
}

/// Moves both bodies until they are whole, nobody is there who wants them, or the time is over.
async fn rest<B>(
    wire: Option<Wire<B>>,
    deadline: Instant,
    mut present: watch::Receiver<()>,
    reason: Reason,
) -> Result<(), Failure>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let Some(wire) = wire else { return Ok(()) };
    tokio::select! {
        ended = wire => ended.map_err(|error| reason.of(&error)),
        () = sleep_until(deadline.into()) => Err(Failure::WallTime),
        // Nobody ever sends: it is an error when the last sender is gone.
        _ = present.changed() => Ok(()),
    }
}
