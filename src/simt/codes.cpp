#include "simt/codes.h"

namespace cuvae::simt {

std::string_view text_of_code(int code) noexcept {
  switch (code) {
    case success: return "no error (cudaSuccess)";
    case invalid_value: return "invalid argument (cudaErrorInvalidValue)";
    case memory_allocation: return "out of memory (cudaErrorMemoryAllocation)";
    case invalid_configuration:
      return "invalid configuration argument (cudaErrorInvalidConfiguration)";
    case invalid_device: return "invalid device ordinal (cudaErrorInvalidDevice)";
    case invalid_resource_handle: return "invalid resource handle (cudaErrorInvalidResourceHandle)";
    case illegal_state:
      return "the operation cannot be performed in the present state (cudaErrorIllegalState)";
    case not_ready: return "device not ready (cudaErrorNotReady)";
    case out_of_resources:
      return "too many resources requested for launch (cudaErrorLaunchOutOfResources)";
    case cooperative_launch_too_large:
      return "too many blocks in cooperative launch (cudaErrorCooperativeLaunchTooLarge)";
    case not_supported: return "operation not supported (cudaErrorNotSupported)";
    case capture_unsupported:
      return "operation not permitted when stream is capturing (cudaErrorStreamCaptureUnsupported)";
    case capture_invalidated:
      return "operation failed due to a previous error during capture "
             "(cudaErrorStreamCaptureInvalidated)";
    case capture_unmatched:
      return "capture was not ended in the same stream as it began "
             "(cudaErrorStreamCaptureUnmatched)";
    case capture_unjoined:
      return "capturing stream has unjoined work (cudaErrorStreamCaptureUnjoined)";
    case capture_isolation:
      return "dependency created on uncaptured work in another stream "
             "(cudaErrorStreamCaptureIsolation)";
    case captured_event:
      return "operation not permitted on an event last recorded in a capturing stream "
             "(cudaErrorCapturedEvent)";
    default: return "an unknown code";
  }
}

}  // namespace cuvae::simt
