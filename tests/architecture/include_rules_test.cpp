#include "architecture/include_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace onestep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(IncludeRules, TheHouseIsInOrder) {
  const SourceTree tree = read_source_tree(std::string(ONESTEP_SOURCE_DIR) + "/src");
  EXPECT_GT(tree.size(), 50u);
  EXPECT_THAT(broken_include_rules(tree), IsEmpty());
}

TEST(IncludeRules, ProcessesDoNotSeeEachOther) {
  EXPECT_THAT(broken_include_rules({{"cli/x.cpp", "#include \"coordinator/api.h\"\n"}}),
              ElementsAre(HasSubstr("cli may not see coordinator")));
  EXPECT_THAT(broken_include_rules({{"coordinator/x.cpp", "#include \"worker/run/jobs.h\"\n"}}),
              ElementsAre(HasSubstr("coordinator may not see worker/run")));
  EXPECT_THAT(broken_include_rules({{"common/x.cpp", "#include \"cli/text.h\"\n"}}),
              ElementsAre(HasSubstr("common may not see cli")));
}

TEST(IncludeRules, FoldersInTheMiddleOfTheWorkerDoNotSeeEachOther) {
  EXPECT_THAT(broken_include_rules({{"worker/dmd/x.cpp", "#include \"worker/models/adm_unet.h\"\n"}}),
              ElementsAre(HasSubstr("worker/dmd may not see worker/models")));
  EXPECT_THAT(broken_include_rules({{"worker/tensors/x.cpp", "#include \"worker/diffusion/denoiser.h\"\n"}}),
              ElementsAre(HasSubstr("worker/tensors may not see worker/diffusion")));
  EXPECT_THAT(broken_include_rules({{"worker/run/x.cpp", "#include \"worker/models/adm_unet.h\"\n"}}), IsEmpty());
}

TEST(IncludeRules, HeavyHeadersBelongToFewFiles) {
  EXPECT_THAT(broken_include_rules({{"common/x.cpp", "#include <torch/torch.h>\n"}}), ElementsAre(HasSubstr("torch")));
  EXPECT_THAT(broken_include_rules({{"worker/run/x.cpp", "#include <mpi.h>\n"}}), ElementsAre(HasSubstr("mpi.h")));
  EXPECT_THAT(broken_include_rules({{"worker/comm/x.cpp", "#include <ATen/ATen.h>\n"}}), ElementsAre(HasSubstr("ATen")));
  EXPECT_THAT(broken_include_rules({{"cli/submit.cpp", "  # include  <boost/beast.hpp>\n"}}),
              ElementsAre(HasSubstr("boost")));
  EXPECT_THAT(broken_include_rules({{"coordinator/api.cpp", "#include <sqlite3.h>\n"}}),
              ElementsAre(HasSubstr("sqlite3")));
  EXPECT_THAT(broken_include_rules({{"common/hash.cpp", "#include <hdf5.h>\n"}}), ElementsAre(HasSubstr("hdf5")));
  EXPECT_THAT(broken_include_rules({{"cli/client.cpp", "#include <boost/beast.hpp>\n"}}), IsEmpty());
}

TEST(IncludeRules, CirclesAndMissingGuardsAreFound) {
  EXPECT_THAT(broken_include_rules({{"common/a.h", "#pragma once\n#include \"common/b.h\"\n"},
                                    {"common/b.h", "#pragma once\n#include \"common/a.h\"\n"}}),
              ElementsAre(HasSubstr("common/a.h -> common/b.h -> common/a.h")));
  EXPECT_THAT(broken_include_rules({{"common/a.h", "\n"}}), ElementsAre(HasSubstr("#pragma once")));
}

TEST(IncludeRules, UnknownFoldersAreRefused) {
  EXPECT_THAT(broken_include_rules({{"server/x.cpp", "#include \"common/error.h\"\n"}}),
              ElementsAre(HasSubstr("not one of the house")));
}

}  // namespace
}  // namespace onestep
