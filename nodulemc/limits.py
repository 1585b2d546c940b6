"""The limits of inputs. Larger inputs are refused. docs/reliability.md lists the other refusals.

Each limit is far above any real case, and far below Grand-Challenge's 16 GiB or its five minutes.
"""

MAX_JSON_BYTES = 16 << 20
MAX_TABLE_BYTES = 64 << 20
MAX_TABLE_ROWS = 1_000_000  # for a cohort's manifest; so many of the shortest useful rows fill the 64 MiB
MAX_MEMBER_BYTES = 1 << 30  # the largest published network, with its decoder, has 200 MiB in fp32
MAX_NODULES = 1_000  # a patch has 1 MiB; the largest number in a public scan of LUNA25 is 11
MAX_NAME_LENGTH = 1_000
MAX_NODULE_ML = 1_000  # for all nodules of a segmentation together; a lung has more, a mass of 10 cm half as much
MAX_NODULE_VOXELS = 32 << 20  # for all of them together; 1 litre at 0.3 mm
MAX_SEG_BYTES = 1 << 30  # decoded: 32,000 frames of 512 × 512 single bits
MAX_SEG_FRAMES = 20_000
MAX_OUTLINE_BYTES = 64 << 20  # for an RTSTRUCT; a nodule's outlines take about 10 kB
MAX_CROSSINGS = 5_000_000  # of outlines with the lines through their points, in one RTSTRUCT; smooth outlines have few
MAX_CT_BYTES = 4 << 30  # decoded: 1024 × 1024 × 2048 voxels of 16 bits
MAX_DICOM_FILES = 10_000
MAX_PHANTOM_PATIENTS = 999_999  # per seed; their identifiers begin with the seed and end with six digits
MAX_PHANTOM_CONTROLS = 10  # for each malignant nodule; a whole cohort has about as many
SPACING_MM = (0.1, 20.0)  # CT scanners reach 0.15 mm; a scan written in cm has 0.05 to 0.1
MAX_COORDINATE_MM = 1e5
# A point on the scan's outer face is written with a finite number of digits. So it may lie slightly beyond the face.
FACE_TOLERANCE_MM = 1e-3
# The largest deviation of the direction matrix from orthonormal. DICOM states cosines with few decimals.
MAX_DIRECTION_ERROR = 0.01
# The largest distance, anywhere in the scan, between two geometries in one file: an eighth of a patch voxel. Files
# state geometries in rounded numbers.
MAX_DISAGREEMENT_MM = 0.1
