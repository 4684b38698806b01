//! The service `reviews`, by gRPC: a unary call, and a stream that ends with a trailer of its own.
//! The caller's side is here too, since it has to read that trailer.

mod texts;

use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::call::{CallError, DEADLINE, Fault, Service, within_deadline};
use crate::catalogue::{self, Item};
use crate::trace::TraceContext;
use proto::reviews_client::ReviewsClient;
use proto::reviews_server::Reviews;
use proto::{GetReply, GetRequest, Review};

pub use proto::reviews_server::ReviewsServer;

/// The messages and the service as compiled from `proto/`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications)]
pub mod proto {
    tonic::include_proto!("shop.reviews.v1");
}

/// The service: it knows what was said about the items of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Catalogued {
    /// How long every answer is held back.
    pub delay: Duration,
}

/// What a caller makes of both calls.
#[derive(Clone, Debug)]
pub struct Opinion {
    /// How many reviews there are, and their average.
    pub summary: GetReply,
    /// The reviews themselves, all of them.
    pub reviews: Vec<Review>,
}

/// A caller of the service.
#[derive(Clone, Debug)]
pub struct Reader(ReviewsClient<Channel>);

#[tonic::async_trait]
impl Reviews for Catalogued {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let item = self.item(request).await?;
        let reviews = texts::about(item);
        let stars: u32 = reviews.iter().map(|review| review.stars).sum();
        let count = u32::try_from(reviews.len()).unwrap_or(u32::MAX);
        let average_stars = f64::from(stars) / f64::from(count.max(1));
        Ok(Response::new(GetReply { item_id: item.id.to_owned(), count, average_stars }))
    }

    type StreamStream = Box<dyn tokio_stream::Stream<Item = Result<Review, Status>> + Send + Unpin>;

    async fn stream(&self, request: Request<GetRequest>) -> Result<Response<Self::StreamStream>, Status> {
        let reviews = texts::about(self.item(request).await?);
        let mut trailers = MetadataMap::new();
        trailers.insert(SENT, reviews.len().into());
        // A stream's last item may be a status: with code OK it is a good end that carries trailers.
        let end = Status::with_metadata(Code::Ok, "", trailers);
        let stream = reviews.into_iter().map(Ok).chain([Err(end)]);
        Ok(Response::new(Box::new(tokio_stream::iter(stream))))
    }
}

impl Catalogued {
    async fn item(&self, request: Request<GetRequest>) -> Result<&'static Item, Status> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let id = request.into_inner().item_id;
        catalogue::find(&id).ok_or_else(|| Status::not_found(format!("there is no item {id:?}")))
    }
}

impl Reader {
    /// Reads by `channel`.
    pub fn new(channel: Channel) -> Self {
        Self(ReviewsClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
    }

    /// Makes both calls at once.
    pub async fn read(&self, item: &Item, trace: &TraceContext) -> Result<Opinion, CallError> {
        let both = async {
            let (summary, reviews) =
                tokio::try_join!(self.summary(request(item, trace)), self.reviews(request(item, trace)))?;
            Ok(Opinion { summary, reviews })
        };
        within_deadline(both).await.map_err(|fault| CallError { service: Service::Reviews, fault })
    }

    async fn summary(&self, request: Request<GetRequest>) -> Result<GetReply, Fault> {
        // A client is a handle on the channel: a clone a call is how tonic means it.
        Ok(self.0.clone().get(request).await?.into_inner())
    }

    async fn reviews(&self, request: Request<GetRequest>) -> Result<Vec<Review>, Fault> {
        let mut stream = self.0.clone().stream(request).await?.into_inner();
        let mut reviews = Vec::new();
        while let Some(review) = stream.next().await {
            if reviews.len() == MAX_REVIEWS {
                return Err(Fault::Grpc(format!("more than {MAX_REVIEWS} reviews")));
            }
            reviews.push(review?);
        }
        let trailers = stream.trailers().await?.unwrap_or_default();
        match trailers.get(SENT).and_then(|sent| sent.to_str().ok()?.parse::<usize>().ok()) {
            Some(sent) if sent == reviews.len() => Ok(reviews),
            Some(sent) => Err(Fault::Grpc(format!("{sent} reviews were sent, {} came", reviews.len()))),
            None => Err(Fault::Grpc(format!("the stream ended without the trailer {SENT}"))),
        }
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::DeadlineExceeded => Self::TimedOut,
            code => Self::Grpc(format!("{code:?}: {}", status.message())),
        }
    }
}

fn request(item: &Item, trace: &TraceContext) -> Request<GetRequest> {
    let mut request = Request::new(GetRequest { item_id: item.id.to_owned() });
    request.set_timeout(DEADLINE);
    trace.apply(request.metadata_mut().as_mut());
    request
}

/// The trailer that says how many reviews a stream sent.
const SENT: &str = "x-reviews-sent";
const MAX_MESSAGE: usize = 64 * 1024;
const MAX_REVIEWS: usize = 100;
