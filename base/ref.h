#include "registry/ref.h"
