//! Objects in memory behind S3's operations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::{BUCKET, Shared};

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    etag: String,
    modified: SystemTime,
    metadata: Option<Metadata>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    metadata: Option<Metadata>,
    parts: BTreeMap<i32, (String, Bytes)>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    serial: u64,
}

impl State {
    fn next(&mut self) -> String {
        self.serial += 1;
        format!("{:032x}", self.serial)
    }

    fn insert(&mut self, key: String, bytes: Bytes, metadata: Option<Metadata>) -> String {
        let etag = self.next();
        let object = Object { bytes, etag: etag.clone(), modified: SystemTime::now(), metadata };
        self.objects.insert(key, object);
        etag
    }

    /// The conditions of a write, checked under the same lock as the write itself.
    fn check(
        &self,
        key: &str,
        if_match: &Option<IfMatch>,
        if_none_match: &Option<IfNoneMatch>,
    ) -> S3Result<()> {
        let there = self.objects.get(key);
        if let Some(condition) = if_match {
            let Some(object) = there else { return Err(s3_error!(NoSuchKey)) };
            if !condition_holds(condition, object) {
                return Err(s3_error!(PreconditionFailed));
            }
        }
        match (if_none_match, there) {
            (Some(condition), Some(object)) if condition_holds(condition, object) => {
                Err(s3_error!(PreconditionFailed))
            }
            _ => Ok(()),
        }
    }
}

fn condition_holds(condition: &ETagCondition, object: &Object) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == object.etag,
    }
}

/// The objects of the server's one bucket.
#[derive(Debug, Default)]
pub(super) struct Backend(Mutex<State>);

impl Backend {
    pub(super) fn keys(&self) -> Vec<String> {
        self.0.lock().objects.keys().cloned().collect()
    }

    pub(super) fn object(&self, key: &str) -> Option<Bytes> {
        self.0.lock().objects.get(key).map(|o| o.bytes.clone())
    }

    pub(super) fn put_object(&self, key: &str, bytes: Bytes) {
        self.0.lock().insert(key.to_owned(), bytes, None);
    }

    pub(super) fn remove_object(&self, key: &str) {
        self.0.lock().objects.remove(key);
    }
}

/// The server's operations.
pub(super) struct Memory(pub(super) Arc<Shared>);

impl Memory {
    fn state(&self, bucket: &str) -> S3Result<parking_lot::MutexGuard<'_, State>> {
        if bucket == BUCKET { Ok(self.0.backend.0.lock()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    fn honours_conditions(&self) -> bool {
        !self.0.faults.lock().ignore_conditions
    }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    let parts: Vec<Bytes> =
        body.try_collect().await.map_err(|e| s3_error!(IncompleteBody, "body not readable: {e}"))?;
    Ok(match <[Bytes; 1]>::try_from(parts) {
        Ok([one]) => one,
        Err(parts) => parts.concat().into(),
    })
}

fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

fn read_conditions(
    object: &Object,
    if_match: &Option<IfMatch>,
    if_none_match: &Option<IfNoneMatch>,
) -> S3Result<()> {
    if if_match.as_ref().is_some_and(|c| !condition_holds(c, object)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.as_ref().is_some_and(|c| condition_holds(c, object)) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

#[async_trait::async_trait]
impl S3 for Memory {
    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let i = req.input;
        let object =
            self.state(&i.bucket)?.objects.get(&i.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        read_conditions(&object, &i.if_match, &i.if_none_match)?;
        let size = object.bytes.len() as u64;
        let range = i.range.map(|r| r.check(size)).transpose().map_err(|_| s3_error!(InvalidRange))?;
        let (bytes, content_range) = match range {
            None => (object.bytes, None),
            Some(r) => {
                let text = format!("bytes {}-{}/{size}", r.start, r.end - 1);
                (object.bytes.slice(r.start as usize..r.end as usize), Some(text))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(bytes.len() as i64),
            body: Some(StreamingBlob::from(s3s::Body::from(bytes))),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(object.modified.into()),
            metadata: object.metadata,
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let i = req.input;
        let object =
            self.state(&i.bucket)?.objects.get(&i.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        read_conditions(&object, &i.if_match, &i.if_none_match)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(object.bytes.len() as i64),
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(object.modified.into()),
            metadata: object.metadata,
            ..HeadObjectOutput::default()
        }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let i = req.input;
        let bytes = collect(i.body).await?;
        let honours = self.honours_conditions();
        let mut state = self.state(&i.bucket)?;
        if honours {
            state.check(&i.key, &i.if_match, &i.if_none_match)?;
        }
        let etag = state.insert(i.key, bytes, i.metadata);
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(strong(&etag)), ..PutObjectOutput::default() }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.state(&req.input.bucket)?.objects.remove(&req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut state = self.state(&req.input.bucket)?;
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            state.objects.remove(&object.key);
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let i = req.input;
        let state = self.state(&i.bucket)?;
        let prefix = i.prefix.clone().unwrap_or_default();
        let delimiter = i.delimiter.clone().filter(|d| !d.is_empty());
        let after = i.continuation_token.clone().or_else(|| i.start_after.clone()).unwrap_or_default();
        let keys_max = i.max_keys.unwrap_or(1000).clamp(0, 1000) as usize;
        let (mut contents, mut prefixes) = (Vec::new(), Vec::<String>::new());
        let (mut last, mut truncated) = (String::new(), false);
        // A page may end with a rolled-up prefix; the next one then starts behind everything below it.
        let skip = delimiter.as_ref().filter(|d| !after.is_empty() && after.ends_with(d.as_str()));
        for (key, object) in state.objects.range(prefix.clone().max(after.clone())..) {
            if !key.starts_with(&prefix) {
                break;
            }
            if *key <= after || (skip.is_some() && key.starts_with(&after)) {
                continue;
            }
            let rolled = delimiter.as_ref().and_then(|d| {
                key[prefix.len()..].find(d.as_str()).map(|at| key[..prefix.len() + at + d.len()].to_owned())
            });
            if rolled.is_some() && rolled == prefixes.last().cloned() {
                continue;
            }
            if contents.len() + prefixes.len() == keys_max {
                truncated = true;
                break;
            }
            last = rolled.clone().unwrap_or_else(|| key.clone());
            match rolled {
                Some(p) => prefixes.push(p),
                None => contents.push(s3s::dto::Object {
                    key: Some(key.clone()),
                    size: Some(object.bytes.len() as i64),
                    e_tag: Some(strong(&object.etag)),
                    last_modified: Some(object.modified.into()),
                    ..s3s::dto::Object::default()
                }),
            }
        }
        let key_count = (contents.len() + prefixes.len()) as i32;
        let prefixes = prefixes.into_iter().map(|p| CommonPrefix { prefix: Some(p) }).collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(i.bucket),
            prefix: i.prefix,
            delimiter: i.delimiter,
            max_keys: Some(keys_max as i32),
            key_count: Some(key_count),
            is_truncated: Some(truncated),
            next_continuation_token: truncated.then_some(last),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let i = req.input;
        let mut state = self.state(&i.bucket)?;
        let id = state.next();
        let upload = Upload { key: i.key.clone(), metadata: i.metadata, parts: BTreeMap::new() };
        state.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(i.bucket),
            key: Some(i.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let i = req.input;
        let bytes = collect(i.body).await?;
        let mut state = self.state(&i.bucket)?;
        let etag = state.next();
        let upload = state.uploads.get_mut(&i.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.parts.insert(i.part_number, (etag.clone(), bytes));
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(strong(&etag)), ..UploadPartOutput::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        /// S3's smallest part, the last one excepted.
        const PART_BYTES_MIN: usize = 5 << 20;
        let i = req.input;
        let honours = self.honours_conditions();
        let mut state = self.state(&i.bucket)?;
        if honours {
            state.check(&i.key, &i.if_match, &i.if_none_match)?;
        }
        let upload = state.uploads.get(&i.upload_id).filter(|u| u.key == i.key);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let asked = i.multipart_upload.and_then(|m| m.parts).unwrap_or_default();
        let (mut whole, mut last_number) = (Vec::new(), 0);
        for (n, part) in asked.iter().enumerate() {
            let number = part.part_number.unwrap_or_default();
            let (etag, bytes) = upload.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.as_ref().is_some_and(|e| e.value() != etag) {
                return Err(s3_error!(InvalidPart));
            }
            if number <= last_number {
                return Err(s3_error!(InvalidPartOrder));
            }
            if bytes.len() < PART_BYTES_MIN && n + 1 < asked.len() {
                return Err(s3_error!(EntityTooSmall));
            }
            last_number = number;
            whole.extend_from_slice(bytes);
        }
        let metadata = upload.metadata.clone();
        state.uploads.remove(&i.upload_id);
        let etag = state.insert(i.key.clone(), whole.into(), metadata);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(i.bucket),
            key: Some(i.key),
            e_tag: Some(strong(&etag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.state(&req.input.bucket)?.uploads.remove(&req.input.upload_id);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
