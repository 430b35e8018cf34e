/* Finds the digest that a blob's URL names. Any thread. */
#ifndef REGISTRY_URLDIGEST_H
#define REGISTRY_URLDIGEST_H

#include <stdbool.h>

#include "base/digest.h"

/* path: of a URL, percent-encoded, without query. True if it ends in one of
 *
 *   /sha256:<hex>             any registry; ghcr.io's storage
 *   /sha256/<aa>/<hex>        aa: the first two of hex; quay.io's storage
 *   /sha256/<aa>/<hex>/data   the storage of Docker's registry, wherever that
 *                             is kept: Docker Hub, Azure and MCR, S3, GCS
 *
 * Then what stands there has that digest, or is wrong. A digest further up in
 * the path says nothing about the file. */
bool url_digest(const char *path, struct digest *ret);

#endif
