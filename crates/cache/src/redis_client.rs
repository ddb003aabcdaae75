//! Redis, alone or found by its sentinels, with or without TLS.
//!
//! One multiplexed connection; one on which anything went wrong is thrown away and made anew by the next call.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, IntoConnectionInfo, RedisFuture, TlsCertificates,
};
use tokio::sync::Mutex;

use crate::{Backend, CacheError};

/// Settings of a [`RedisCache`]. The durations are bounds of one call.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// `host:port`; of the sentinels, any number, where `master_name` is given.
    pub addresses: Vec<String>,
    /// The name of the master that the sentinels watch.
    pub master_name: Option<String>,
    /// Put before every key.
    pub prefix: String,
    /// User, empty for none.
    pub username: String,
    /// Password, empty for none.
    pub password: String,
    /// Number of the database.
    pub db: i64,
    /// For connecting.
    pub dial_timeout: Duration,
    /// For an answer.
    pub read_timeout: Duration,
    /// Use TLS.
    pub tls: bool,
    /// Do not check the server's certificate.
    pub tls_insecure: bool,
    /// PEM file of the authorities to trust instead of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM files of the certificate to show and its key: both or none.
    pub tls_client: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must carry, instead of the one that it is called by.
    pub tls_server_name: Option<String>,
    /// Keys of one read; 0 for all of a call.
    pub get_batch: usize,
    /// Reads of one call at a time.
    pub get_concurrency: usize,
    /// How long values live.
    pub ttl: Duration,
}

/// Values in Redis.
#[derive(Debug)]
pub struct RedisCache {
    options: RedisOptions,
    certificates: TlsCertificates,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl RedisCache {
    /// A client that has not connected yet. Errors: no address, several without a master's name, an unreadable file.
    pub fn new(options: RedisOptions) -> Result<Self, CacheError> {
        let settings = |what: &str| Err(CacheError::Settings(format!("redis: {what}")));
        match (options.addresses.len(), &options.master_name) {
            (0, _) => return settings("no addr"),
            (1, _) | (_, Some(_)) => {}
            _ => return settings("several addresses want a master_name; a Redis cluster is not supported"),
        }
        let read = |file: &PathBuf| {
            let named = |e| CacheError::Settings(format!("redis: {}: {e}", file.display()));
            std::fs::read(file).map_err(named)
        };
        let client = options.tls_client.as_ref().map(|(certificate, key)| {
            Ok::<_, CacheError>(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
        });
        let certificates = TlsCertificates {
            client_tls: client.transpose()?,
            root_cert: options.tls_ca_file.as_ref().map(read).transpose()?,
        };
        let cache = RedisCache { options, certificates, connection: Mutex::default() };
        // What is in the files is looked at now, not when the first value is wanted.
        cache.client(&cache.options.addresses[0], false)?;
        Ok(cache)
    }

    fn client(&self, address: &str, sentinel: bool) -> Result<Client, CacheError> {
        let o = &self.options;
        let named = o.tls_server_name.as_ref().filter(|_| o.tls);
        let address = match (named, address.rsplit_once(':')) {
            (Some(name), Some((_, port))) => format!("{name}:{port}"),
            _ => address.to_owned(),
        };
        let scheme = if o.tls { "rediss" } else { "redis" };
        let insecure = if o.tls && o.tls_insecure { "#insecure" } else { "" };
        let mut info = format!("{scheme}://{address}/{insecure}").into_connection_info()?;
        if !sentinel {
            let mut settings = info.redis_settings().clone().set_db(o.db);
            if !o.username.is_empty() {
                settings = settings.set_username(&o.username);
            }
            if !o.password.is_empty() {
                settings = settings.set_password(&o.password);
            }
            info = info.set_redis_settings(settings);
        }
        let certificates = &self.certificates;
        Ok(if o.tls && (certificates.client_tls.is_some() || certificates.root_cert.is_some()) {
            Client::build_with_tls(info, certificates.clone())?
        } else {
            Client::open(info)?
        })
    }

    async fn dial(&self, address: &str, sentinel: bool) -> Result<MultiplexedConnection, CacheError> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.dial_timeout))
            .set_response_timeout(Some(self.options.read_timeout));
        if self.options.tls_server_name.is_some() {
            config = config.set_dns_resolver(CalledBy(address.to_owned()));
        }
        let client = self.client(address, sentinel)?;
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// The address of the master, from the first sentinel that answers.
    async fn master(&self, name: &str) -> Result<String, CacheError> {
        let mut last = CacheError::Settings("redis: no sentinel".to_owned());
        for address in &self.options.addresses {
            let asked = async {
                let mut c = self.dial(address, true).await?;
                let mut command = redis::cmd("SENTINEL");
                command.arg("get-master-addr-by-name").arg(name);
                let found: Option<(String, u16)> = command.query_async(&mut c).await?;
                let unknown = || CacheError::Protocol(format!("sentinel {address} knows no master {name:?}"));
                found.map(|(host, port)| format!("{host}:{port}")).ok_or_else(unknown)
            };
            match asked.await {
                Ok(address) => return Ok(address),
                Err(err) => last = err,
            }
        }
        Err(last)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, CacheError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            return Ok(connection.clone());
        }
        let address = match &self.options.master_name {
            Some(name) => self.master(name).await?,
            None => self.options.addresses[0].clone(),
        };
        let connection = self.dial(&address, false).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    async fn run<T: redis::FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T, CacheError> {
        let mut connection = self.connection().await?;
        match pipeline.query_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(err) => {
                // Whatever it was: a broken connection, or a server that became a replica.
                *self.connection.lock().await = None;
                Err(err.into())
            }
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.options.prefix)
    }
}

/// Finds the server by the address that it is called by, whatever name its certificate carries.
struct CalledBy(String);

impl AsyncDNSResolver for CalledBy {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _name: &'b str,
        _port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(&self.0).await?.collect();
            Ok(Box::new(found.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

#[async_trait]
impl Backend for RedisCache {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let batch = if self.options.get_batch > 0 { self.options.get_batch } else { keys.len().max(1) };
        let batches: Vec<Vec<String>> =
            keys.chunks(batch).map(|keys| keys.iter().map(|k| self.key(k)).collect()).collect();
        let reads = futures::stream::iter(batches)
            .map(|keys| async move {
                let mut pipeline = redis::pipe();
                pipeline.cmd("MGET").arg(&keys);
                let (values,): (Vec<Option<Vec<u8>>>,) = self.run(&pipeline).await?;
                Ok::<_, CacheError>(values)
            })
            .buffered(self.options.get_concurrency.max(1));
        let values: Vec<Vec<Option<Vec<u8>>>> = reads.try_collect().await?;
        Ok(values.into_iter().flatten().map(|v| v.map(Bytes::from)).collect())
    }

    async fn put(&self, items: Vec<(String, Bytes)>) -> Result<(), CacheError> {
        let mut pipeline = redis::pipe();
        for (key, value) in &items {
            let ttl = self.options.ttl.as_secs().max(1);
            pipeline.cmd("SET").arg(self.key(key)).arg(&value[..]).arg("EX").arg(ttl).ignore();
        }
        self.run::<()>(&pipeline).await
    }
}
