#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "A video tagged BT.709 has other colours in PyAV 15 and 16 than in 17: the older releases ignore the tag and convert by
BT.601, up to 17 of 255 apart for a red block. lerobot 0.4.4 and 0.6.1 allow only the older ones (av<16)."

colours=$(mktemp)
for release in 17.0.0 16.1.0 15.1.0; do
  environment 3.11 av==$release numpy==2.2.6
  "$python" - <<'PY' | tee -a "$colours"
import os
import av
import numpy as np

if not os.path.exists("tagged.mp4"):  # written once, by the first of the three
    red = np.full((96, 96, 3), (220, 40, 30), np.uint8)
    for name, matrix in (("plain.mp4", None), ("tagged.mp4", 1)):
        with av.open(name, "w") as file:
            stream = file.add_stream("libx264", rate=10, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
            if matrix:
                stream.codec_context.colorspace = matrix
            for frame in [av.VideoFrame.from_ndarray(red, format="rgb24"), None]:
                for packet in stream.encode(frame):
                    file.mux(packet)

for name in ("plain.mp4", "tagged.mp4"):
    with av.open(name) as file:
        pixel = next(file.decode(video=0)).to_ndarray(format="rgb24")[48, 48]
    print(av.__version__, name, *pixel)
PY
done

diff <(sort "$colours") - <<'END' || { echo "the behaviour has changed"; exit 1; }
15.1.0 plain.mp4 220 39 30
15.1.0 tagged.mp4 220 39 30
16.1.0 plain.mp4 220 39 30
16.1.0 tagged.mp4 220 39 30
17.0.0 plain.mp4 220 39 30
17.0.0 tagged.mp4 236 56 27
END
