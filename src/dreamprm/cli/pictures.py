"""The options of all verbs that read images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dreamprm.cli.terminal import left_out
from dreamprm.data import check_images
from dreamprm.data.files import BadRow, in_row, refuse
from dreamprm.errors import DataError
from dreamprm.images import MAX_PIXELS, set_image_limits
from dreamprm.records import Question


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which images are read.

    Attributes:
        image_root: folder that relative image paths start from; by default that of their file.
        max_image_pixels: an image with more is refused before it is decoded.
        allow_remote_images: hosts that images are fetched from where a question names an http(s)
            address; all others are refused.
    """

    image_root: Path | None = None
    max_image_pixels: int = MAX_PIXELS
    allow_remote_images: list[str] = field(default_factory=list)

    def limit_images(self) -> None:
        """Let the limits hold in this process and those that it starts."""
        set_image_limits(self.max_image_pixels, self.allow_remote_images)


@dataclass(frozen=True, kw_only=True)
class UsedImages(ImageOptions):
    """Which images are read, and what becomes of questions whose images cannot be used.

    Attributes:
        skip_bad_images: leave out questions with an image that is missing, damaged or refused, or
            that the model cannot see, and tell which; else the first one ends the run before
            anything is paid.
    """

    skip_bad_images: bool = False

    def usable(
        self, questions: Sequence[Question], file: str | Path, *models: str
    ) -> list[Question]:
        """The questions whose images can be used; all are read to their end.

        Args:
            models: paths or hub names of the models of this process that are to read them.

        Raises:
            DataError: names the first question with another, or says that no question is left.
        """
        self.limit_images()
        usable = self.seen(check_images(questions, file, self.bad_image), file, *models)
        if questions and not usable:
            raise DataError("no question has images that can be used", file=file)
        return usable

    def seen(
        self, questions: Sequence[Question], file: str | Path | None, *models: str
    ) -> list[Question]:
        """The questions that these models can read: of a text model those without images.

        Raises:
            DataError: names the first question with images that a model cannot see.
        """
        if not any(question.images for question in questions):
            return list(questions)
        from dreamprm.models.loading import reads_images

        blind = next((model for model in models if not reads_images(model)), None)
        seen = []
        for row, question in enumerate(questions, start=1):
            with in_row(file, row if file else None, self.bad_image):
                if question.images and blind:
                    raise DataError(
                        f"question '{question.id}' has images, and the model '{blind}' reads text "
                        "alone; take a vision-language model, or --skip_bad_images true",
                        field="images",
                    )
                seen.append(question)
        return seen

    @property
    def bad_image(self) -> BadRow:
        """What is done with a question whose images cannot be used."""
        return left_out if self.skip_bad_images else refuse
