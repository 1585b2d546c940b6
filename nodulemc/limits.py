"""The limits of inputs; larger ones are refused. docs/reliability.md lists the other refusals.

Each is far above what a real case holds and far below what would fill Grand-Challenge's 16 GiB or its five minutes.
"""

MAX_JSON_BYTES = 16 << 20
MAX_TABLE_BYTES = 64 << 20
MAX_TABLE_ROWS = 1_000_000  # a cohort's manifest; its shortest useful rows fill the 64 MiB by then
MAX_MEMBER_BYTES = 1 << 30  # the largest published network, with its decoder, has 200 MiB in fp32
MAX_NODULES = 1_000  # 1 MiB of patch each; LUNA25's fullest public scan has 11
MAX_NAME_LENGTH = 1_000
MAX_NODULE_ML = 1_000  # all nodules of a segmentation together; a lung has more, a mass of 10 cm half of it
MAX_NODULE_VOXELS = 32 << 20  # of them; 1 litre at 0.3 mm
MAX_SEG_BYTES = 1 << 30  # decoded: 32,000 frames of 512 × 512 single bits
MAX_SEG_FRAMES = 20_000
MAX_OUTLINE_BYTES = 64 << 20  # of an RTSTRUCT; a nodule's outlines take some 10 kB
MAX_CROSSINGS = 5_000_000  # of outlines with the lines through their points, in one RTSTRUCT; smooth ones have few
MAX_CT_BYTES = 4 << 30  # decoded: 1024 × 1024 × 2048 voxels of 16 bits
MAX_DICOM_FILES = 10_000
MAX_PHANTOM_PATIENTS = 999_999  # of one seed; their identifiers begin with the seed and end with six digits
MAX_PHANTOM_CONTROLS = 10  # for each malignant nodule; a whole cohort has about as many
SPACING_MM = (0.1, 20.0)  # CT scanners reach 0.15 mm; a scan written in cm has 0.05 to 0.1
MAX_COORDINATE_MM = 1e5
# A point on the scan's outer face is written with finitely many digits, and may so come to lie beyond it.
FACE_TOLERANCE_MM = 1e-3
# Largest deviation of the direction matrix from orthonormal; DICOM states cosines with few decimals.
MAX_DIRECTION_ERROR = 0.01
# Two geometries in one file, anywhere in the scan: an eighth of a patch voxel; files state theirs in rounded numbers.
MAX_DISAGREEMENT_MM = 0.1
