/* Finds the digest in a blob's URL. Any thread. */
#ifndef REGISTRY_URLDIGEST_H
#define REGISTRY_URLDIGEST_H

#include <stdbool.h>

#include "base/digest.h"

/* path: of a URL, percent-encoded, without query. Returns true if path ends in
 * one of
 *
 *   /sha256:<hex>             any registry; ghcr.io's storage
 *   /sha256/<aa>/<hex>        aa: the first two of hex; quay.io's storage
 *   /sha256/<aa>/<hex>/data   the storage of Docker's registry, on any
 *                             backend: Docker Hub, Azure and MCR, S3, GCS
 *
 * The content at such a URL has that digest, or is wrong. A digest further up
 * in the path says nothing about the file. */
bool url_digest(const char *path, struct digest *ret);

#endif
